"""Picture files: reading, compositing on a background, reduction by an area filter."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.errors import ConfigError, DataError
from benchmarks.families.view_synthesis.scenes.scene import Pictures
from benchmarks.utils.text import first_line

Array = NDArray[np.float64]

_OPAQUE = 255
# Exceptions of Pillow on a damaged file; they have no common base class.
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)


def read_picture(path: Path) -> Pictures:
    """Read a picture as (height, width, 3) RGB, or (height, width, 4) RGBA with straight alpha.

    Raises:
        DataError: the file is missing, damaged or not a picture.
    """
    try:
        with Image.open(path) as image:
            transparent = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
            return np.asarray(image.convert("RGBA" if transparent else "RGB"))
    except _UNREADABLE as error:
        raise _unreadable(path, error) from None


def picture_size(path: Path) -> tuple[int, int]:
    """Read height and width from the header of a picture.

    Raises:
        DataError: like `read_picture`.
    """
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except _UNREADABLE as error:
        raise _unreadable(path, error) from None


def prepare(picture: Pictures, height: int, width: int, white_background: bool) -> Pictures:
    """Composite a picture on its background and reduce it to (height, width, 3) uint8.

    Filtering follows compositing, so that the colours of transparent pixels do not affect their neighbours. Where the
    sizes divide evenly, both are sums of integers, exact up to the final rounding.
    """
    opaque = np.uint16(_OPAQUE)
    if picture.shape[-1] == 4:
        alpha = picture[..., 3:].astype(np.uint16)
        light = picture[..., :3] * alpha + opaque * (opaque - alpha) * np.uint16(white_background)
    else:
        light = picture * opaque
    if picture.shape[:2] == (height, width):
        return ((light + opaque // 2) // opaque).astype(np.uint8)  # a half cannot occur, as 255 is odd
    return np.rint(area_filter(light, height, width) / _OPAQUE).astype(np.uint8)


def area_filter(picture: NDArray[Any], height: int, width: int) -> Array:
    """Reduce a picture by the mean over the area of every new pixel.

    Pixels across an edge are weighted by the part inside. Pillow's box filter and PyTorch's "area" mode take whole
    pixels, which shifts the picture where the sizes do not divide evenly.

    Args:
        picture: (rows, columns, channels), not smaller than the result.
        height, width: of the result.

    Returns:
        (height, width, channels).
    """
    rows, columns, channels = picture.shape
    if rows % height == 0 and columns % width == 0:
        tall, wide = rows // height, columns // width
        lines = picture.reshape(height, tall, columns, channels).sum(axis=1, dtype=np.float64)
        total: Array = lines.reshape(height, width, wide, channels).sum(axis=2)
        return total / (tall * wide)
    lines = (_coverage(rows, height) @ picture.reshape(rows, -1)).reshape(height, columns, channels)
    filtered: Array = _coverage(columns, width) @ lines
    return filtered


def scaled_size(height: int, width: int, target: int | None) -> tuple[int, int]:
    """Return height and width of a picture after reduction to `target` columns; None leaves the size unchanged.

    Raises:
        ConfigError: `target` exceeds the width, or the height would not be a whole number.
    """
    if target is None:
        return height, width
    if not 1 <= target <= width:
        raise ConfigError(f"task option width must be between 1 and the pictures' own {width}, got {target}")
    if height * target % width:
        step = width // int(np.gcd(width, height))
        nearest = max(step, round(target / step) * step)
        raise ConfigError(
            f"task option width={target} would give {height * target / width:.2f} rows from {width}x{height} pictures;"
            f" take a multiple of {step}, e.g. {nearest}"
        )
    return height * target // width, target


def _coverage(size: int, target: int) -> Array:
    """Return the share of every new pixel that each old pixel covers, (target, size)."""
    edges = np.arange(target + 1) * (size / target)
    pixels = np.arange(size)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return np.clip(overlap, 0.0, None) * (target / size)


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} cannot be read as a picture: {first_line(error)}")
