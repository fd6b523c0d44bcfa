"""Download of scenes: the public archives, tried in turn, and their safe unpacking."""

import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from zipfile import BadZipFile, ZipFile, ZipInfo

from benchmarks.errors import DataError
from benchmarks.families.view_synthesis.scenes import blender, llff, tiny
from benchmarks.utils.download import fetch, offline
from benchmarks.utils.paths import data_roots, first_writable

_AUTHORS = "https://cseweb.ucsd.edu/~viscomp/projects/LF/papers/ECCV20/nerf"
_DRIVE = "https://drive.usercontent.google.com/download?export=download&confirm=t&id="
_SINGLE_SCENES = "https://huggingface.co/datasets/nerfbaselines/nerfbaselines-data/resolve/main"
_WHOLE = "https://github.com/yxlao/nerfmirror/releases/download/20220618"
_BACKUP = "https://huggingface.co/donydchen/matchnerf/resolve/main"


@dataclass(frozen=True)
class Archive:
    """Public zip file with scenes.

    Attributes:
        url: address; `{scene}` stands for the name of the scene.
        scenes: names of the scenes that it holds; empty for every scene of its collection.
        sha256: checksum of the file, None if unknown.
    """

    url: str
    scenes: tuple[str, ...] = ()
    sha256: str | None = None


ARCHIVES: dict[str, Sequence[Archive]] = {
    # Small archives first: a whole collection is over a gigabyte, and the authors' drive limits downloads per day.
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


SCENE_FILE_ENDINGS = (".json", ".npy", ".png", ".jpg", ".jpeg")
"""Endings of the files of a scene; other members of an archive are not unpacked."""
MAX_UNPACKED_BYTES = 8 << 30
"""Limit against zip bombs, larger than any scene."""

_FILE_TYPE, _SYMLINK = 0o170000, 0o120000  # of the Unix mode in a member's external attributes


@dataclass(frozen=True)
class _Format:
    """Layout of a collection.

    Attributes:
        marker: file that every scene has.
        is_complete: whether a folder holds a whole scene.
    """

    marker: str
    is_complete: Callable[[Path], bool]


_FORMATS = {
    "nerf_synthetic": _Format("transforms_train.json", blender.is_complete),
    "nerf_llff_data": _Format(llff.CAMERAS, llff.is_complete),
}


def download_scene(collection: str, scene: str, data_dir: Path) -> Path:
    """Download a scene to `<data_dir>/<collection>/<scene>`, or to the cache folder if that is read-only.

    The archives are tried in turn. One that cannot be downloaded, does not match its checksum, or lacks a part of the
    scene is reported on stderr. The folder appears once it is complete.

    Returns:
        The scene's folder.

    Raises:
        DataError: every archive failed, DFA_OFFLINE is set, or no folder can be written to.
    """
    root = first_writable([root / collection for root in data_roots(data_dir)], collection)
    if offline():
        raise DataError(f"{scene} is missing and DFA_OFFLINE forbids the download; place it in {root / scene}")
    layout = _FORMATS[collection]
    failures: list[str] = []
    for archive in ARCHIVES[collection]:
        if archive.scenes and scene not in archive.scenes:
            continue
        url = archive.url.format(scene=scene)
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{scene}-", dir=root) as temporary:
            try:
                file = fetch([url], Path(temporary) / f"{scene}.zip", archive.sha256)
                return unpack_scene(file, scene, root / scene, layout.marker, layout.is_complete)
            except DataError as error:
                failures.append(str(error))
                print(f"archive failed: {error}", file=sys.stderr)
    raise DataError(f"could not download {scene} from any of {len(failures)} archives: {'; '.join(failures)}")


def download_file(name: str, data_dir: Path) -> Path:
    """Download a file of `FILES` to `data_dir`, or to the cache folder if that is read-only.

    Raises:
        DataError: every mirror failed, DFA_OFFLINE is set, or no folder can be written to.
    """
    return fetch(FILES[name], first_writable(data_roots(data_dir), name) / name, None)


def unpack_scene(archive: Path, scene: str, target: Path, marker: str, is_complete: Callable[[Path], bool]) -> Path:
    """Unpack the folder of a scene to `target`, which appears complete or not at all.

    The scene's folder is the one named `scene` that holds the file `marker`, at any depth; an archive of a single scene
    may hold that file at its top level. If `target` exists, files are moved into it one by one and its other files
    remain.

    Args:
        archive: zip file.
        scene: name of the scene's folder.
        target: folder to create or complete.
        marker: file that every scene of the collection has.
        is_complete: whether an unpacked folder holds a whole scene.

    Returns:
        `target`.

    Raises:
        DataError: the file is not a zip file or is damaged, lacks a part of the scene, has members that are links or
            lead out of the folder, or exceeds `MAX_UNPACKED_BYTES`; or `target` cannot be written.
    """
    try:
        with ZipFile(archive) as opened:
            members = [member for member in opened.infolist() if not member.is_dir()]
            folder = _scene_folder(members, scene, marker)
            chosen = _choose(members, folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=f".{scene}-", dir=target.parent) as temporary:
                staging = Path(temporary) / scene
                for path, member in chosen.items():
                    place = staging / path
                    place.parent.mkdir(parents=True, exist_ok=True)
                    with opened.open(member) as source, place.open("wb") as out:
                        shutil.copyfileobj(source, out, 1 << 20)
                if not is_complete(staging):
                    raise DataError(f"{archive.name} does not hold all of {scene}")
                _move(staging, target)
    except (BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{archive.name} is not a valid zip file: {error}") from None
    except OSError as error:
        raise DataError(f"{target} cannot be written: {error}") from None
    return target


def _scene_folder(members: list[ZipInfo], scene: str, marker: str) -> PurePosixPath:
    paths = [PurePosixPath(member.filename) for member in members]
    places = [path.parent for path in paths if path.name == marker and "__MACOSX" not in path.parts]
    named = [place for place in places if place.name == scene]
    if named:
        return min(named, key=lambda place: len(place.parts))
    if len(places) == 1 and places[0] == PurePosixPath("."):
        return places[0]
    raise DataError(f"no folder {scene} with a {marker} in the archive")


def _choose(members: list[ZipInfo], folder: PurePosixPath) -> dict[PurePosixPath, ZipInfo]:
    """Return path below the scene's folder → member, for the members to unpack."""
    chosen: dict[PurePosixPath, ZipInfo] = {}
    for member in members:
        path = PurePosixPath(member.filename)
        if not path.is_relative_to(folder) or "__MACOSX" in path.parts or path.suffix.lower() not in SCENE_FILE_ENDINGS:
            continue
        below = path.relative_to(folder)
        # Backslashes and drive letters lead out of the folder on Windows.
        if path.is_absolute() or ".." in path.parts or "\\" in member.filename or ":" in member.filename:
            raise DataError(
                f"the archive's member '{member.filename}' leads out of the scene's folder; nothing was unpacked"
            )
        if (member.external_attr >> 16) & _FILE_TYPE == _SYMLINK:
            raise DataError(f"the archive's member '{member.filename}' is a link; nothing was unpacked")
        chosen[below] = member
    if sum(member.file_size for member in chosen.values()) > MAX_UNPACKED_BYTES:
        raise DataError("the archive would unpack to more than any scene needs; nothing was unpacked")
    return chosen


def _move(staging: Path, target: Path) -> None:
    if not target.exists():
        staging.rename(target)
        return
    for file in [path for path in staging.rglob("*") if path.is_file()]:
        place = target / file.relative_to(staging)
        place.parent.mkdir(parents=True, exist_ok=True)
        file.replace(place)
