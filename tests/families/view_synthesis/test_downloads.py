"""Downloads of scenes from a local server: complete, damaged and unrelated archives."""

import io
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from benchmarks.commands.fetch import main as fetch_data
from benchmarks.errors import DataError
from benchmarks.families.view_synthesis import data
from benchmarks.families.view_synthesis.data import load_scene, missing_data
from benchmarks.families.view_synthesis.scenes import download as downloads
from benchmarks.families.view_synthesis.scenes.blender import is_complete, load_blender
from benchmarks.families.view_synthesis.scenes.download import ARCHIVES, Archive, download_scene
from tests.conftest import Command
from tests.families.view_synthesis.packing import collection, members_of, written, zipped
from tests.helpers.scenes import write_blender

FILES: dict[str, bytes] = {}
"""What the server serves, by path; a path that ends in "short" breaks off half way."""


class Server(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = FILES.get(self.path)
        if body is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if self.path.endswith("short") else body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    instance = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=instance.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{instance.server_port}"
    instance.shutdown()
    instance.server_close()


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DFA_OFFLINE", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("DFA_CACHE_DIR", str(tmp_path / "cache"))
    FILES.clear()


def serve(monkeypatch: pytest.MonkeyPatch, archive: str, *entries: Archive) -> None:
    monkeypatch.setitem(ARCHIVES, archive, entries)


def test_archives_are_tried_in_turn_and_failures_reported(
    scenes: Path, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = zipped(members_of(scenes / "lego", "lego/"))
    FILES.update({"/page": b"<html>", "/short": whole, "/lego.zip": whole})
    serve(
        monkeypatch,
        "nerf_synthetic",
        Archive(f"{server}/page"),
        Archive(f"{server}/short"),
        Archive(f"{server}/lego.zip", sha256="0" * 64),
        Archive(f"{server}/other", scenes=("ship",)),
        Archive(f"{server}/{{scene}}.zip"),
    )
    folder = download_scene("nerf_synthetic", "lego", tmp_path / "data")
    assert folder == tmp_path / "data" / "nerf_synthetic" / "lego" and is_complete(folder)
    errors = capsys.readouterr().err
    assert "not a valid zip file" in errors and "IncompleteRead" in errors and "expected 0000" in errors
    assert "/other" not in errors
    assert [path.name for path in folder.parent.iterdir()] == ["lego"]


def test_if_no_archive_will_do_nothing_is_left(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FILES["/page"] = b"<html>"
    serve(monkeypatch, "nerf_synthetic", Archive(f"{server}/page"), Archive(f"{server}/nowhere"))
    with pytest.raises(DataError, match="could not download lego from any of 2 archives") as caught:
        load_scene("lego", data_dir=tmp_path / "data", download=True)
    assert "\n" not in str(caught.value)
    assert written(tmp_path) == []


def test_missing_scene_names_folder_and_remedy(tmp_path: Path) -> None:
    for scene, task, folder in (
        ("ship", "blender_ship", "nerf_synthetic/ship"),
        ("room", "llff_room", "nerf_llff_data/room"),
    ):
        with pytest.raises(DataError) as caught:
            load_scene(scene, data_dir=tmp_path)
        for message in (str(caught.value), missing_data(task, tmp_path)):
            assert str(tmp_path / folder) in message and f"python -m benchmarks fetch {task}" in message
    with pytest.raises(DataError, match="python -m benchmarks fetch tiny_nerf_lego"):
        load_scene("tiny_lego", data_dir=tmp_path)
    assert "python -m benchmarks fetch tiny_nerf_lego" in missing_data("tiny_nerf_lego", tmp_path)


def test_offline_refuses_to_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DFA_OFFLINE", "1")
    for scene in ("lego", "fern", "tiny_lego"):
        with pytest.raises(DataError, match="DFA_OFFLINE"):
            load_scene(scene, data_dir=tmp_path / "data", download=True)


def test_both_collections_download_and_load(
    scenes: Path, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FILES["/a.zip"] = zipped(collection(scenes))
    FILES["/b.zip"] = zipped(members_of(scenes / "fern", "nerf_llff_data/fern/"))
    serve(monkeypatch, "nerf_synthetic", Archive(f"{server}/a.zip"))
    serve(monkeypatch, "nerf_llff_data", Archive(f"{server}/b.zip"))
    for scene, width in (("lego", None), ("fern", 32)):
        loaded = load_scene(scene, data_dir=tmp_path, download=True, width=width)
        again = load_scene(scene, data_dir=tmp_path, width=width)
        assert loaded.kind == "real" and loaded.checksums == again.checksums
    assert missing_data("blender_lego", tmp_path) == missing_data("llff_fern", tmp_path) == ""


def test_a_part_of_a_scene_is_completed_by_a_download(
    scenes: Path, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "nerf_synthetic" / "lego"
    write_blender(folder, width=8, views=9)
    (folder / "train" / "r_0.png").unlink()
    serve(monkeypatch, "nerf_synthetic", Archive(f"{server}/a.zip"))
    partial = load_scene("lego", data_dir=tmp_path, download=True, allow_partial=True)
    assert partial.notes["left_out"] == "1 of 9 train frames without a picture"
    assert "using the pictures that are present" in capsys.readouterr().err
    with pytest.raises(DataError, match="could not download lego"):
        load_scene("lego", data_dir=tmp_path, download=True)
    FILES["/a.zip"] = zipped(collection(scenes))
    assert "left_out" not in load_scene("lego", data_dir=tmp_path, download=True).notes
    assert is_complete(folder)


def test_read_only_data_folder_sends_downloads_to_the_cache(
    scenes: Path, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FILES["/a.zip"] = zipped(collection(scenes))
    serve(monkeypatch, "nerf_synthetic", Archive(f"{server}/a.zip"))
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    scene = load_scene("lego", data_dir=locked, download=True)
    assert list(locked.iterdir()) == []
    assert is_complete(tmp_path / "cache" / "nerf_synthetic" / "lego")
    expected = load_blender("lego", scenes / "lego", width=None, allow_partial=False)
    np.testing.assert_array_equal(scene.splits["test"].images, expected.splits["test"].images)


def test_array_of_tiny_nerf_is_preferred_then_the_blender_scene(
    scenes: Path, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_blender(tmp_path / "nerf_synthetic" / "lego", width=8, views=9)
    assert "in place of" in str(load_scene("tiny_lego", data_dir=tmp_path, width=4).notes["pictures"])
    monkeypatch.setitem(downloads.FILES, "tiny_nerf_data.npz", (f"{server}/tiny.npz",))
    assert "in place of" in str(load_scene("tiny_lego", data_dir=tmp_path, width=4, download=True).notes["pictures"])
    stream = io.BytesIO()
    poses = np.tile(np.eye(4, dtype=np.float32), (106, 1, 1))
    np.savez(stream, images=np.zeros((106, 4, 4, 3), dtype=np.float32), poses=poses, focal=np.array(5.0))
    FILES["/tiny.npz"] = stream.getvalue()
    scene = load_scene("tiny_lego", data_dir=tmp_path, download=True)
    assert "pictures" not in scene.notes and (scene.width, scene.focal) == (4, pytest.approx(5.0))
    assert missing_data("tiny_nerf_lego", tmp_path) == ""


def test_the_command_for_data_fetches_a_task(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    write_blender(tmp_path / "source", width=32, views=9)
    FILES["/ship.zip"] = zipped(members_of(tmp_path / "source", "ship/"))
    serve(monkeypatch, "nerf_synthetic", Archive(f"{server}/{{scene}}.zip"))
    code, out, _ = command(fetch_data, "blender_ship", "--data-dir", str(tmp_path / "data"))
    assert code == 0 and "blender_ship: real data" in out and "6 file(s) verified" in out
    assert is_complete(tmp_path / "data" / "nerf_synthetic" / "ship")
    code, _, err = command(fetch_data, "blender_mic", "--data-dir", str(tmp_path / "data"))
    assert code == 2 and "error: blender_mic: could not download mic" in err


def test_every_scene_has_archives_by_http_and_a_stand_in(tmp_path: Path) -> None:
    for archives_of in ARCHIVES.values():
        assert all(archive.url.startswith("https://") for archive in archives_of)
        assert sum(not archive.scenes for archive in archives_of) >= 2
    for scene in data.SCENES:
        made = load_scene(scene, data_dir=tmp_path, source="stand_in", width=8, stand_in_views=9)
        assert made.kind == "stand-in" and made.name == scene
        assert made.ndc == (scene in data.LLFF or scene == "stand_in_front")
        assert made.white_background == (not made.ndc and scene != "tiny_lego")
