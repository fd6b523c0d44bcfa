"""Data files in another format than their name says, damaged, or pointing elsewhere: refused with what shows it."""

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.errors import DataError
from benchmarks.families.recommenders.criteo.first_rows import check_first_rows
from benchmarks.families.recommenders.criteo.load import load_criteo
from benchmarks.families.recommenders.movielens import MOST_BYTES, read_ratings, unpack
from benchmarks.families.view_synthesis.scenes.blender import load_blender
from tests.helpers.scenes import write_blender

ROW = "\t".join(["1", *map(str, range(13)), *(f"{number:08x}" for number in range(26))])
_CRITEO: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "is empty"),
    "commas": (ROW.replace("\t", ","), "line 1 has 1 column instead of 40: '1,0,1,2"),
    "one column short": (ROW.rpartition("\t")[0], "line 1 has 39 columns instead of 40"),
    "one column more": (f"{ROW}\tx", "line 1 has 41 columns instead of 40"),
    "a header": (
        "\t".join(["label", *(f"I{n}" for n in range(39))]) + f"\n{ROW}",
        "line 1 has no label of 0 or 1: 'label",
    ),
    "labels of 2": (ROW.replace("1", "2", 1), "line 1 has no label of 0 or 1: '2"),
    "labels of -1": (f"-{ROW}", "line 1 has no label of 0 or 1: '-1"),
    "no labels": (ROW[1:], "line 1 has no label of 0 or 1"),
    "labels in words": (ROW.replace("1", "click", 1), "line 1 has no label of 0 or 1: 'click"),
    "broken numbers": (ROW.replace("\t5\t", "\t5.5\t", 1), "line 1 has a cell that is no integer"),
    "words for numbers": (ROW.replace("\t5\t", "\tfive\t", 1), "line 1 has a cell that is no integer"),
    "a line of 10 MB": ("x" * 10_000_000, "line 1 has more than 1048576 bytes: 'xxx"),
    "an empty first line": (f"\n{ROW}", "line 1 has 1 column instead of 40: ''"),
    "binary": (bytes(range(256)) * 9, "line 1 has "),
    "JSON": (json.dumps({"label": 1}), "line 1 has 1 column"),
    "zeros": (bytes(5000), "line 1 has "),
    "utf-16": (ROW.encode("utf-16"), "line 1 has "),
    "mostly another format": ("\n".join([ROW, *["a,b,c"] * 60, ROW]), "line 2 has 1 column instead of 40: 'a,b,c'"),
}


@pytest.mark.timeout(30)
@pytest.mark.parametrize("content", _CRITEO)
def test_a_click_log_in_another_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    monkeypatch.setenv("DFA_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "criteo").mkdir()
    text, message = _CRITEO[content]
    (tmp_path / "criteo" / "train.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError) as error:
        load_criteo(tmp_path)
    assert message in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 600
    assert not (tmp_path / "cache").exists()


def test_a_gzip_that_is_none_and_one_that_is_cut(tmp_path: Path) -> None:
    (tmp_path / "train.txt.gz").write_bytes(b"not packed")
    with pytest.raises(DataError, match="cannot be read"):
        check_first_rows(tmp_path / "train.txt.gz")
    (tmp_path / "train.txt.gz").write_bytes(bytes.fromhex("1f8b0800000000000003"))
    with pytest.raises(DataError, match="cannot be read"):
        check_first_rows(tmp_path / "train.txt.gz")


def test_the_share_of_malformed_rows_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DFA_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "criteo").mkdir()
    (tmp_path / "criteo" / "train.txt").write_text("\n".join([*[ROW] * 300, "bad", *[ROW] * 99]) + "\n")
    notes = load_criteo(tmp_path, max_malformed=0.01).notes
    assert (notes["rows"], notes["malformed_rows"], notes["malformed_share"]) == (399, 1, 1 / 400)


_RATINGS: dict[str, bytes] = {
    "empty": b"",
    "a word": b"word\n",
    "three columns": b"1\t2\t3\n",
    "words": b"1\tx\t3\t4\n",
    "ids from 0": b"0\t1\t3\t4\n",
    "negative ids": b"1\t-7\t3\t4\n",
    "huge ids": b"1\t99999999999\t3\t4\n",
    "many digits": b"1\t" + b"9" * 400 + b"\t3\t4\n",
    "no ratings below the header": b"user\titem\trating\ttime\n",
    "binary": bytes(range(256)),
    "zeros": bytes(300),
    "latin-1": "1\té\t3\t4\n".encode("latin-1"),
}


@pytest.mark.parametrize("content", _RATINGS)
def test_ratings_that_are_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "u.data").write_bytes(_RATINGS[content])
    with pytest.raises(DataError) as error:
        read_ratings(tmp_path / "u.data")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["no archive", "without it", "too large", "cut", "folder", "encrypted"])
def test_an_archive_of_ratings_is_read_with_bounds(tmp_path: Path, kind: str) -> None:
    archive = tmp_path / "ml-100k.zip"
    if kind == "no archive":
        archive.write_bytes(b"PK\x03\x04 and no more")
    elif kind == "folder":
        archive.mkdir()
    else:
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
            content = bytes(MOST_BYTES + 1) if kind == "too large" else b"1\t2\t3\t4\n" * 1000
            packed.writestr("../u.data" if kind == "without it" else "ml-100k/u.data", content)
    if kind == "cut":
        archive.write_bytes(archive.read_bytes()[:-40])
    if kind == "encrypted":
        marked = bytearray(archive.read_bytes())
        marked[6] |= 1
        marked[marked.index(b"PK\x01\x02") + 8] |= 1
        archive.write_bytes(marked)
    with pytest.raises(DataError) as error:
        unpack(archive, "ml-100k/u.data", tmp_path / "out" / "u.data")
    assert "\n" not in str(error.value) and not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "toys"
    write_blender(folder, width=8, views=6)
    return folder


def _frame(**changes: Any) -> Callable[[Any], object]:
    return lambda content: content["frames"][0].update(changes)


_LISTS: dict[str, tuple[Callable[[Any], object] | bytes, str]] = {
    "leads up": (_frame(file_path="../../secret"), "'../../secret' lies outside the scene's folder"),
    "leads up from within": (_frame(file_path="./train/../../secret"), "lies outside"),
    "absolute": (_frame(file_path="/etc/passwd"), "'/etc/passwd' lies outside"),
    "backslashes": (_frame(file_path="..\\..\\secret"), "lies outside"),
    "NUL": (_frame(file_path="train\0x"), "lies outside"),
    "no path": (lambda content: content["frames"][0].pop("file_path"), "not a list of frames"),
    "no pose": (lambda content: content["frames"][0].pop("transform_matrix"), "not a list of frames"),
    "pose of 3 by 3": (_frame(transform_matrix=[[1, 0, 0]] * 3), "is not 4 by 4"),
    "pose of words": (_frame(transform_matrix=[["a"] * 4] * 4), "not a list of frames"),
    "ragged pose": (_frame(transform_matrix=[[1], [1, 2]]), "not a list of frames"),
    "pose without end": (_frame(transform_matrix=[[float("inf")] * 4] * 4), "transforms_train.json: "),
    "pose of no numbers": (_frame(transform_matrix=[[float("nan")] * 4] * 4), "transforms_train.json: "),
    "angle of 0": (lambda content: content.update(camera_angle_x=0), "must lie between 0 and pi"),
    "angle of no number": (lambda content: content.update(camera_angle_x=float("nan")), "must lie between 0 and pi"),
    "angle in words": (lambda content: content.update(camera_angle_x="wide"), "not a list of frames"),
    "no frames": (lambda content: content.update(frames=[]), "lists no frames"),
    "frames of null": (lambda content: content.update(frames=None), "not a list of frames"),
    "frames of numbers": (lambda content: content.update(frames=[1, 2]), "not a list of frames"),
    "deep": (b"[" * 100_000, "not a list of frames"),
    "binary": (bytes(range(256)), "not a list of frames"),
    "half": (b'{"camera_angle_x": 0.6, "fra', "not a list of frames"),
    "a list": (b"[1]", "not a list of frames"),
}


@pytest.mark.timeout(30)
@pytest.mark.parametrize("change", _LISTS)
def test_a_scene_whose_list_is_hostile(scene: Path, tmp_path: Path, change: str) -> None:
    folder = Path(shutil.copytree(scene, tmp_path / "toys"))
    path, (damage, message) = folder / "transforms_train.json", _LISTS[change]
    if isinstance(damage, bytes):
        path.write_bytes(damage)
    else:
        content = json.loads(path.read_text())
        damage(content)
        path.write_text(json.dumps(content))
    with pytest.raises(DataError) as error:
        load_blender("toys", folder, width=None, allow_partial=True)
    assert message in str(error.value) and "\n" not in str(error.value)
