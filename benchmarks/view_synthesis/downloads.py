"""Fetching scenes from their public homes."""

import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.errors import DataError
from benchmarks.fetch import fetch, offline
from benchmarks.places import cache_dir, writable
from benchmarks.view_synthesis import blender, llff, tiny
from benchmarks.view_synthesis.archives import unpack_scene

_AUTHORS = "https://cseweb.ucsd.edu/~viscomp/projects/LF/papers/ECCV20/nerf"
_DRIVE = "https://drive.usercontent.google.com/download?export=download&confirm=t&id="
_SINGLE_SCENES = "https://huggingface.co/datasets/nerfbaselines/nerfbaselines-data/resolve/main"
_WHOLE = "https://github.com/yxlao/nerfmirror/releases/download/20220618"
_BACKUP = "https://huggingface.co/donydchen/matchnerf/resolve/main"


@dataclass(frozen=True)
class Archive:
    """A zip file that holds a scene.

    Attributes:
        url: where it is.
        scenes: those that it holds; empty: every scene of its collection. `{scene}` in the address stands for the name.
        sha256: of the file, if it is known.
    """

    url: str
    scenes: tuple[str, ...] = ()
    sha256: str | None = None


ARCHIVES: dict[str, Sequence[Archive]] = {
    # The small ones first. A whole collection is over a gigabyte, and the authors' drive limits downloads a day.
    "nerf_synthetic": (
        Archive(f"{_AUTHORS}/nerf_example_data.zip", ("lego",)),
        Archive(f"{_SINGLE_SCENES}/blender/{{scene}}.zip"),
        Archive(f"{_DRIVE}18JxhpWD-4ZmuFKLzKlAw-w5PpzZxXOcG"),
        Archive(
            f"{_WHOLE}/nerf_synthetic.zip", sha256="f01fd1b4ab045b0d453917346f26f898657bb5bec4834b95fdad1f361826e45e"
        ),
        Archive(f"{_BACKUP}/nerf_synthetic.zip"),
    ),
    "nerf_llff_data": (
        Archive(f"{_AUTHORS}/nerf_example_data.zip", ("fern",)),
        Archive(f"{_SINGLE_SCENES}/llff/{{scene}}.zip"),
        Archive(f"{_DRIVE}16VnMcF1KJYxN9QId6TClMsZRahHNMW5g"),
        Archive(
            f"{_WHOLE}/nerf_llff_data.zip", sha256="5794b432feaf4f25bcd603addc6ad0270cec588fed6a364b7952001f07466635"
        ),
        Archive(f"{_BACKUP}/nerf_llff_data.zip"),
    ),
}
FILES = {
    tiny.FILE: (f"{_AUTHORS}/{tiny.FILE}", f"https://people.eecs.berkeley.edu/~bmild/nerf/{tiny.FILE}"),
}


@dataclass(frozen=True)
class _Format:
    """What tells that a folder holds a whole scene."""

    marker: str
    is_complete: Callable[[Path], bool]


_FORMATS = {
    "nerf_synthetic": _Format("transforms_train.json", blender.is_complete),
    "nerf_llff_data": _Format(llff.CAMERAS, llff.is_complete),
}


def obtain(collection: str, scene: str, data_dir: Path) -> Path:
    """Download a scene into `<data_dir>/<collection>/<scene>` (or the cache folder, if that cannot be written).

    The archives are tried in turn. One that cannot be had, is not what its checksum promises, or does not hold the
    whole scene is reported and the next one tried; the folder appears once it is complete.

    Returns:
        The scene's folder.

    Raises:
        DataError: none of the archives would do, or the network is switched off.
    """
    root = _root(data_dir, collection) / collection
    if offline():
        raise DataError(f"{scene} would have to be downloaded, but DFA_OFFLINE forbids it; place it in {root / scene}")
    form = _FORMATS[collection]
    failures: list[str] = []
    for archive in ARCHIVES[collection]:
        if archive.scenes and scene not in archive.scenes:
            continue
        url = archive.url.format(scene=scene)
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{scene}-", dir=root) as temporary:
            try:
                file = fetch([url], Path(temporary) / f"{scene}.zip", archive.sha256)
                return unpack_scene(file, scene, root / scene, form.marker, form.is_complete)
            except DataError as error:
                failures.append(str(error))
                print(f"archive failed: {error}", file=sys.stderr)
    raise DataError(f"could not download {scene} from any of {len(failures)} archives: {'; '.join(failures)}")


def obtain_file(name: str, data_dir: Path) -> Path:
    """Download a file of `FILES` into `data_dir` (or the cache folder).

    Raises:
        DataError: no mirror delivers it.
    """
    return fetch(FILES[name], _root(data_dir, ".") / name, None)


def _root(data_dir: Path, below: str) -> Path:
    return data_dir if writable(data_dir / below) else cache_dir()
