"""Downloads from a local server that misbehaves on request, over a broken connection, and to a full disk."""

import hashlib
import io
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO

import pytest
import requests
import urllib3

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
    monkeypatch.setenv("no_proxy", "127.0.0.1,nowhere.invalid")


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


def test_without_a_network_the_hosts_are_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "file"
    with pytest.raises(DataError) as caught:
        fetch(["http://nowhere.invalid/one", "http://nowhere.invalid/two"], target, CHECKSUM)
    assert str(caught.value) == (
        "could not download file from any of 2 mirrors: no network (could not resolve nowhere.invalid);"
        f" try again, or place it at {target}"
    )
    assert capsys.readouterr().err == ""


def test_failure_leaves_an_existing_file_alone(server: str, tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")
    with pytest.raises(DataError, match="expected"):
        fetch([f"{server}/altered"], target, CHECKSUM)
    assert target.read_bytes() == b"old"


def test_without_checksum_a_short_body_is_still_refused(server: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="IncompleteRead"):
        fetch([f"{server}/short"], tmp_path / "file", None)


def test_offline_switch(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DFA_OFFLINE", "1")
    with pytest.raises(DataError, match="DFA_OFFLINE"):
        fetch([f"{server}/good"], tmp_path / "file", CHECKSUM)


class Broken(io.BytesIO):
    """Body of a response that ends in a failure of the encryption."""

    def read(self, size: int | None = -1) -> bytes:
        if block := super().read(size):
            return block
        raise ssl.SSLError(1, "record layer failure")


def _response(url: str, **_: object) -> requests.Response:
    response = requests.Response()
    response.status_code = 200
    body = Broken(b"ha") if "broken" in url else io.BytesIO(b"half")
    response.raw = urllib3.HTTPResponse(body, preload_content=False)
    return response


def test_a_mirror_whose_connection_breaks_is_followed_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "get", _response)
    assert fetch(["https://broken", "https://good"], tmp_path / "file", None).read_bytes() == b"half"
    with pytest.raises(DataError, match=r"could not download other from any of 1 mirrors.*record layer failure"):
        fetch(["https://broken"], tmp_path / "other", None)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def _full_disk(path: str, mode: str) -> IO[bytes]:
    return Path("/dev/full").open("wb")


def test_a_full_disk_is_not_a_failure_of_the_mirror(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pooch.downloaders.open", _full_disk, raising=False)
    with pytest.raises(DataError, match=r"cannot write .*file: .*No space left"):
        fetch([f"{server}/good", f"{server}/good"], tmp_path / "file", CHECKSUM)
    assert not list(tmp_path.iterdir()) and "mirror failed" not in capsys.readouterr().err
