"""Scenes on disk and the archives they come in."""

import io
import zipfile
from pathlib import Path


def members_of(folder: Path, below: str) -> dict[str, bytes]:
    return {
        f"{below}{path.relative_to(folder).as_posix()}": path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def zipped(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


def collection(scenes: Path) -> dict[str, bytes]:
    """Pack a scene like the authors' archive, with the files that macOS adds."""
    return {
        "nerf_synthetic/README.txt": b"licences",
        "__MACOSX/nerf_synthetic/lego/._transforms_train.json": b"\x00\x05",
        **members_of(scenes / "lego", "nerf_synthetic/lego/"),
        **members_of(scenes / "lego", "nerf_synthetic/ship/"),
        "nerf_synthetic/lego/test/r_0_depth_0001.exe": b"not wanted",
    }


def written(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
