"""Taking one scene out of a zip archive that is not to be trusted."""

import shutil
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from zipfile import BadZipFile, ZipFile, ZipInfo

from benchmarks.errors import DataError

WANTED = (".json", ".npy", ".png", ".jpg", ".jpeg")
"""Endings of the files that scenes consist of; others are left in the archive."""
MAX_BYTES = 8 << 30
"""More than any scene takes up: a small archive that unpacks to more is meant to fill the disk."""

_LINK = 0o120000


def unpack_scene(archive: Path, scene: str, target: Path, marker: str, is_complete: Callable[[Path], bool]) -> Path:
    """Unpack the folder of a scene to `target`, which appears as a whole or not at all.

    The scene's folder is the one named `scene` that holds the file `marker`, at any depth; an archive of a single scene
    may hold that file at its top. Into a folder that is there already the files are moved one by one, and what else it
    holds stays.

    Args:
        archive: zip file.
        scene: name of the scene's folder.
        target: folder to be.
        marker: a file that every such scene has.
        is_complete: whether an unpacked folder is a whole scene.

    Returns:
        `target`.

    Raises:
        DataError: no zip file, a damaged one, one with members that lead out of the folder or without the whole scene.
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
        raise DataError(f"{archive.name} is no sound zip file: {error}") from None
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
    """Path below the scene's folder → member."""
    chosen: dict[PurePosixPath, ZipInfo] = {}
    for member in members:
        path = PurePosixPath(member.filename)
        if not path.is_relative_to(folder) or "__MACOSX" in path.parts or path.suffix.lower() not in WANTED:
            continue
        below = path.relative_to(folder)
        # On Windows a backslash and a drive would lead out as well.
        if path.is_absolute() or ".." in path.parts or "\\" in member.filename or ":" in member.filename:
            raise DataError(f"the archive's member '{member.filename}' leads out of its folder; nothing was unpacked")
        if (member.external_attr >> 16) & 0o170000 == _LINK:
            raise DataError(f"the archive's member '{member.filename}' is a link; nothing was unpacked")
        chosen[below] = member
    if sum(member.file_size for member in chosen.values()) > MAX_BYTES:
        raise DataError("the archive would unpack to more than a scene can take up; nothing was unpacked")
    return chosen


def _move(staging: Path, target: Path) -> None:
    if not target.exists():
        staging.rename(target)
        return
    for file in [path for path in staging.rglob("*") if path.is_file()]:
        place = target / file.relative_to(staging)
        place.parent.mkdir(parents=True, exist_ok=True)
        file.replace(place)
