"""Unpacking of scenes: valid, truncated, malicious and unrelated archives."""

import io
import stat
import zipfile
from pathlib import Path

import pytest

from benchmarks.errors import DataError
from benchmarks.families.view_synthesis.scenes import download as archives
from benchmarks.families.view_synthesis.scenes.blender import is_complete
from benchmarks.families.view_synthesis.scenes.download import unpack_scene
from tests.families.view_synthesis.packing import collection, members_of, written, zipped


def unpack(content: bytes, tmp_path: Path, scene: str = "lego") -> Path:
    archive = tmp_path / "archive.zip"
    archive.write_bytes(content)
    return unpack_scene(archive, scene, tmp_path / "data" / scene, "transforms_train.json", is_complete)


def test_one_scene_is_taken_out_of_a_collection(scenes: Path, tmp_path: Path) -> None:
    target = unpack(zipped(collection(scenes)), tmp_path)
    assert members_of(target, "") == members_of(scenes / "lego", "")
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["lego"]


def test_an_archive_of_a_single_scene_needs_no_folder(scenes: Path, tmp_path: Path) -> None:
    assert is_complete(unpack(zipped(members_of(scenes / "lego", "")), tmp_path))


def test_another_scene_is_not_taken_for_the_one_wanted(scenes: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no folder drums with a transforms_train\.json"):
        unpack(zipped(collection(scenes)), tmp_path, "drums")


@pytest.mark.parametrize("name", ["lego/../../escaped.png", "lego/C:\\escaped.png", "lego/a/../../../escaped.png"])
def test_members_that_lead_out_are_refused_and_nothing_is_unpacked(scenes: Path, tmp_path: Path, name: str) -> None:
    content = zipped({**members_of(scenes / "lego", "lego/"), name: b"gotcha"})
    with pytest.raises(DataError, match="folder; nothing was unpacked"):
        unpack(content, tmp_path)
    assert written(tmp_path) == ["archive.zip"]


def test_absolute_members_are_never_written(scenes: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.png"
    target = unpack(zipped({**members_of(scenes / "lego", "lego/"), str(outside): b"gotcha"}), tmp_path)
    assert not outside.exists() and is_complete(target)
    everything = {f"{tmp_path}/lego/{name}": content for name, content in members_of(scenes / "lego", "").items()}
    with pytest.raises(DataError, match="leads out"):
        unpack(zipped(everything), tmp_path)
    assert not (tmp_path / "lego").exists()


def test_links_are_refused(scenes: Path, tmp_path: Path) -> None:
    stream = io.BytesIO(zipped(members_of(scenes / "lego", "lego/")))
    with zipfile.ZipFile(stream, "a") as archive:
        link = zipfile.ZipInfo("lego/train/link.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(DataError, match=r"link\.png' is a link"):
        unpack(stream.getvalue(), tmp_path)
    assert written(tmp_path) == ["archive.zip"]


def test_archives_that_would_fill_the_disk_are_refused(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "MAX_UNPACKED_BYTES", 1 << 20)
    bomb = {**members_of(scenes / "lego", "lego/"), "lego/train/zeros.png": bytes(2 << 20)}
    assert len(zipped(bomb)) < 1 << 19
    with pytest.raises(DataError, match="more than any scene needs"):
        unpack(zipped(bomb), tmp_path)
    assert written(tmp_path) == ["archive.zip"]


def test_an_archive_without_every_picture_is_refused(scenes: Path, tmp_path: Path) -> None:
    members = members_of(scenes / "lego", "lego/")
    del members["lego/val/r_0.png"]
    with pytest.raises(DataError, match="does not hold all of lego"):
        unpack(zipped(members), tmp_path)
    assert written(tmp_path) == ["archive.zip"]


@pytest.mark.parametrize("damage", ["cut", "flipped", "page"])
def test_damaged_archives_are_refused(scenes: Path, tmp_path: Path, damage: str) -> None:
    content = bytearray(zipped(members_of(scenes / "lego", "lego/")))
    if damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "flipped":
        content[200] ^= 0xFF
    else:
        content = bytearray(b"<html>Quota exceeded</html>")
    with pytest.raises(DataError, match="not a valid zip file"):
        unpack(bytes(content), tmp_path)
    assert written(tmp_path) == ["archive.zip"]


def test_what_was_in_the_folder_stays(scenes: Path, tmp_path: Path) -> None:
    target = tmp_path / "data" / "lego"
    target.mkdir(parents=True)
    (target / "mine.txt").write_text("mine")
    unpack(zipped(collection(scenes)), tmp_path)
    assert is_complete(target) and (target / "mine.txt").read_text() == "mine"
