"""Picture files: reading, laying on a background, shrinking by an area filter."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.errors import ConfigError, DataError
from benchmarks.families.view_synthesis.scenes.scene import Pictures

Array = NDArray[np.float64]

_OPAQUE = 255
# Whatever Pillow raises on a broken file, bombs included; there is no common base class for these.
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)


def read_picture(path: Path) -> Pictures:
    """The picture as (height, width, 3) RGB, or (height, width, 4) RGBA with straight alpha.

    Raises:
        DataError: it is missing, broken off or no picture.
    """
    try:
        with Image.open(path) as image:
            transparent = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
            return np.asarray(image.convert("RGBA" if transparent else "RGB"))
    except _UNREADABLE as error:
        raise _unreadable(path, error) from None


def picture_size(path: Path) -> tuple[int, int]:
    """Height and width, from the header alone.

    Raises:
        DataError: as `read_picture`.
    """
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except _UNREADABLE as error:
        raise _unreadable(path, error) from None


def write_picture(path: Path, picture: Pictures) -> None:
    """Write RGB or RGBA as PNG."""
    Image.fromarray(picture).save(path, format="PNG")


def prepare(picture: Pictures, height: int, width: int, white_background: bool) -> Pictures:
    """The picture on its background at another size, (height, width, 3) uint8.

    Filtering comes after compositing, so that the colours of transparent pixels do not bleed into their neighbours.
    Where the sizes divide, both are sums of integers, exact up to the final rounding.
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
    """Mean over the area that every new pixel covers, (height, width, channels).

    Pixels that lie across an edge count by the part that lies inside; Pillow's box filter and PyTorch's "area" mode
    take whole pixels and so shift the picture where the sizes do not divide.

    Args:
        picture: (rows, columns, channels), not smaller than the result.
        height, width: of the result.
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
    """Height and width of a (height, width) picture shrunk to `target` columns; None leaves it as it is.

    Raises:
        ConfigError: larger than the picture, or not a whole number of rows: pixels would not be square.
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
    """Share of every new pixel that each old pixel fills, (target, size)."""
    edges = np.arange(target + 1) * (size / target)
    pixels = np.arange(size)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return np.clip(overlap, 0.0, None) * (target / size)


def _unreadable(path: Path, error: Exception) -> DataError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return DataError(f"{path} cannot be read as a picture: {reason}")
