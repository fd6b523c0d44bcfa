"""Cache of decoded pictures as memory-mapped arrays, which several processes may share."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from filelock import FileLock

from benchmarks.errors import DataError
from benchmarks.families.view_synthesis.scenes.images import prepare, read_picture
from benchmarks.families.view_synthesis.scenes.scene import Pictures
from benchmarks.utils.download import sha256_of
from benchmarks.utils.files import atomic_path
from benchmarks.utils.paths import cache_dir, writable
from benchmarks.utils.progress import bar
from benchmarks.utils.threads import in_threads

VERSION = 1
"""Version of the decoding; raise it whenever the same files give other pictures than before."""
_MAX_THREADS = 8

Result = TypeVar("Result")


def image_cache_dir(folder: Path) -> Path:
    """Return the cache of the scene in `folder`: `folder`/cache, or within the cache folder if that is read-only."""
    beside = folder / "cache"
    return beside if writable(beside) else cache_dir() / "view_synthesis" / folder.name


def decoded(
    files: Sequence[Path], size: tuple[int, int], white_background: bool, place: Path, title: str
) -> tuple[Pictures, str]:
    """Decode, composite and reduce picture files of one size, or take them from the cache.

    Args:
        files: picture files, in order.
        size: height and width to reduce them to.
        white_background: whether transparent pixels show white; black otherwise.
        place: folder of the cache.
        title: prefix of the cache file's name, shown while decoding.

    Returns:
        A read-only memory map, (files, height, width, 3) uint8, and the sha256 of the list of the files' sha256s.

    Raises:
        DataError: a file is missing or is not a picture, the files differ in size, or the cache cannot be written.
    """
    checksums = in_parallel(lambda index: sha256_of(files[index]), len(files))
    key = _digest([VERSION, checksums, size, white_background])[:16]
    height, width = size

    def fill(pictures: Pictures) -> None:
        shapes: dict[tuple[int, ...], Path] = {}

        def decode(index: int) -> None:
            picture = read_picture(files[index])
            shapes.setdefault(picture.shape[:2], files[index])
            if len(shapes) > 1:
                (one, first), (other, second) = list(shapes.items())[:2]
                raise DataError(f"pictures differ in size: {first} is {_show(one)}, {second} is {_show(other)}")
            pictures[index] = prepare(picture, height, width, white_background)

        in_parallel(decode, len(files), f"decoding {title}")

    name = f"{title.replace(' ', '-')}-{width}x{height}-{key}.npy"
    return cached(place / name, (len(files), height, width, 3), fill), _digest(checksums)


def cached(path: Path, shape: tuple[int, ...], fill: Callable[[Pictures], None]) -> Pictures:
    """Return the uint8 array in `path` as a read-only memory map; create it by `fill` if it is missing or damaged.

    Raises:
        DataError: the folder cannot be written to.
    """
    if (found := _open(path, shape)) is not None:
        return found
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.parent / ".lock"):
            if (found := _open(path, shape)) is not None:
                return found
            with atomic_path(path) as temporary:
                pictures = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)
                fill(pictures)
                pictures.flush()
                del pictures
    except OSError as error:
        raise DataError(f"the picture cache {path.parent} cannot be written: {error}; set DFA_CACHE_DIR") from error
    made = _open(path, shape)
    assert made is not None
    return made


def in_parallel(function: Callable[[int], Result], count: int, title: str = "") -> list[Result]:
    """Return `function` of 0 … count - 1, computed in threads; decoding and hashing release the interpreter lock."""
    results: list[Result] = []
    with bar(title, count, shown=bool(title)) as advance:
        for result in in_threads(function, range(count), min(_MAX_THREADS, os.cpu_count() or 1)):
            results.append(result)
            advance(1)
    return results


def _open(path: Path, shape: tuple[int, ...]) -> Pictures | None:
    """Open the array in `path`; None if it is missing, damaged or of another shape."""
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return found if found.dtype == np.uint8 and found.shape == shape else None


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _show(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]}"
