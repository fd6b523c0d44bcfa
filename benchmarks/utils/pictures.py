"""Pictures of a figure one by one, for pages that show two of them on top of each other."""

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.errors import ResultsError
from benchmarks.utils.files import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIX = ".pictures.json"
"""What stands in place of a figure's `.png` in the name of the file with its pictures."""


@dataclass(frozen=True)
class Picture:
    """Picture of a figure.

    Attributes:
        group: pictures of a group show the same and can be compared, e.g. a scene.
        label: what sets it apart in its group, e.g. the method.
        note: what to say of it, e.g. its PSNR.
        pixels: (height, width, 3).
    """

    group: str
    label: str
    note: str
    pixels: NDArray[np.uint8]


@dataclass(frozen=True)
class Illustrated:
    """A figure and its pictures."""

    figure: "Figure"
    pictures: Sequence[Picture]


def write_pictures(pictures: Sequence[Picture], path: Path) -> None:
    """Write pictures to one file, as PNG inside JSON.

    Raises:
        ResultsError: the file cannot be written.
    """
    content = [
        {"group": picture.group, "label": picture.label, "note": picture.note, "png": _encoded(picture.pixels)}
        for picture in pictures
    ]
    try:
        write_text(path, json.dumps(content, indent=1) + "\n")
    except OSError as error:
        raise ResultsError(f"cannot write {path}: {error.strerror or error}") from None


def read_pictures(path: Path) -> list[dict[str, str]]:
    """Return the pictures of a file: `group`, `label`, `note`, and `png`, its bytes in base64.

    Raises:
        ResultsError: the file cannot be read, or is not what `write_pictures` writes.
    """
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        return [{key: str(picture[key]) for key in ("group", "label", "note", "png")} for picture in content]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ResultsError(f"the pictures in '{path}' cannot be read: {error!r}") from None


def _encoded(pixels: NDArray[np.uint8]) -> str:
    from PIL import Image

    written = io.BytesIO()
    Image.fromarray(pixels).save(written, format="PNG", optimize=True)
    return base64.b64encode(written.getvalue()).decode("ascii")
