"""The downloader against a local server that misbehaves on request."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from benchmarks.errors import DataError
from benchmarks.utils.download import fetch, sha256_of

CONTENT = b"citations " * 1000
CHECKSUM = hashlib.sha256(CONTENT).hexdigest()


class Mirror(BaseHTTPRequestHandler):
    """/good serves the file, /altered another one, /short breaks off half way, anything else is not there."""

    def do_GET(self) -> None:
        if self.path not in ("/good", "/altered", "/short"):
            self.send_error(404)
            return
        body = CONTENT.replace(b"c", b"k", 1) if self.path == "/altered" else CONTENT
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if self.path == "/short" else body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    instance = ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    threading.Thread(target=instance.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{instance.server_port}"
    instance.shutdown()
    instance.server_close()


@pytest.fixture(autouse=True)
def _online(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DFA_OFFLINE", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def test_fetches_into_a_new_folder(server: str, tmp_path: Path) -> None:
    target = tmp_path / "new" / "file"
    assert fetch([f"{server}/good"], target, CHECKSUM) == target
    assert target.read_bytes() == CONTENT
    assert sha256_of(target) == CHECKSUM


@pytest.mark.parametrize("bad", ["missing", "altered", "short"])
def test_next_mirror_is_tried_and_the_failure_reported(
    server: str, tmp_path: Path, bad: str, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "file"
    fetch([f"{server}/{bad}", f"{server}/good"], target, CHECKSUM)
    assert target.read_bytes() == CONTENT
    assert f"{server}/{bad}" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("bad", ["missing", "altered", "short"])
def test_failure_leaves_nothing_and_names_every_mirror(server: str, tmp_path: Path, bad: str) -> None:
    unreachable = "http://127.0.0.1:9/file"
    with pytest.raises(DataError) as caught:
        fetch([f"{server}/{bad}", unreachable, "ftp://127.0.0.1/file"], tmp_path / "file", CHECKSUM)
    for url in (f"{server}/{bad}", unreachable, "ftp://127.0.0.1/file"):
        assert url in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_failure_leaves_an_existing_file_alone(server: str, tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")
    with pytest.raises(DataError, match="expected"):
        fetch([f"{server}/altered"], target, CHECKSUM)
    assert target.read_bytes() == b"old"


def test_without_checksum_a_short_body_is_still_refused(server: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="connection lost"):
        fetch([f"{server}/short"], tmp_path / "file", None)


def test_offline_switch(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DFA_OFFLINE", "1")
    with pytest.raises(DataError, match="DFA_OFFLINE"):
        fetch([f"{server}/good"], tmp_path / "file", CHECKSUM)
