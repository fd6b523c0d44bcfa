"""A reader never sees half a file, or half a folder; mirrors and disks that fail are told apart."""

import io
import os
import ssl
import stat
import urllib.request
from email.message import Message
from pathlib import Path
from typing import Any

import pytest

from benchmarks.errors import DataError
from benchmarks.utils.download import fetch
from benchmarks.utils.files import atomic_path, unfinished_folder, write_text


def test_an_exception_in_the_middle_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "table.md"
    target.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_path(target) as temporary:
        temporary.write_text("ne")
        assert target.read_text() == "old"
        raise KeyboardInterrupt
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_success_replaces_the_old_file_and_makes_missing_folders(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "table.md"
    write_text(target, "± old")
    write_text(target, "± new")
    assert target.read_text(encoding="utf-8") == "± new"
    assert list(target.parent.iterdir()) == [target]


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "file", "")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def test_a_file_in_the_place_of_the_folder_is_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("")
    with pytest.raises(OSError):
        write_text(tmp_path / "results" / "table.md", "")


def test_a_folder_is_there_once_it_is_renamed(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with unfinished_folder(tmp_path) as folder:
            (folder / "half").write_text("")
            assert folder.parent == tmp_path
            folder.rename(tmp_path / "whole")
    finally:
        os.umask(before)
    assert [path.name for path in tmp_path.iterdir()] == ["whole"] and (tmp_path / "whole" / "half").exists()
    assert stat.S_IMODE((tmp_path / "whole").stat().st_mode) == 0o750


def test_a_folder_that_is_not_renamed_is_removed_and_so_is_what_a_killed_process_left(tmp_path: Path) -> None:
    (tmp_path / ".building-dead" / "deep").mkdir(parents=True)
    (tmp_path / "whole").mkdir()
    with pytest.raises(KeyboardInterrupt), unfinished_folder(tmp_path) as folder:
        (folder / "half").write_text("")
        assert set(tmp_path.iterdir()) == {tmp_path / "whole", folder}
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == [tmp_path / "whole"]


class Answer(io.BytesIO):
    """What a mirror answers; `fault` comes instead of its end."""

    def __init__(self, content: bytes, fault: Exception | None = None) -> None:
        super().__init__(content)
        self.headers = Message()
        self._fault = fault

    def read(self, size: int | None = -1) -> bytes:
        block = super().read(size)
        if not block and self._fault:
            raise self._fault
        return block


@pytest.fixture
def mirrors(monkeypatch: pytest.MonkeyPatch) -> dict[str, Answer]:
    """Address → answer; those that were asked are gone."""
    answers: dict[str, Answer] = {}

    def answer(request: urllib.request.Request, timeout: float) -> Answer:
        return answers.pop(request.full_url)

    monkeypatch.delenv("DFA_OFFLINE", raising=False)
    monkeypatch.setattr(urllib.request, "urlopen", answer)
    return answers


def test_a_mirror_whose_connection_breaks_is_followed_by_the_next(tmp_path: Path, mirrors: dict[str, Answer]) -> None:
    fault = ssl.SSLError(1, "record layer failure")
    mirrors |= {"https://one": Answer(b"ha", fault), "https://two": Answer(b"half")}
    assert fetch(list(mirrors), tmp_path / "file", None).read_bytes() == b"half"
    mirrors |= {"https://one": Answer(b"ha", fault)}
    with pytest.raises(DataError, match=r"could not download other from any of 1 mirrors.*record layer failure"):
        fetch(list(mirrors), tmp_path / "other", None)


def test_a_disk_that_is_full_is_no_fault_of_the_mirror(
    tmp_path: Path, mirrors: dict[str, Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = Path.open

    def full(path: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        return genuine(Path("/dev/full") if mode == "wb" else path, mode, *arguments, **options)

    monkeypatch.setattr(Path, "open", full)
    mirrors |= {"https://one": Answer(b"x" * (1 << 20)), "https://two": Answer(b"")}
    with pytest.raises(DataError, match=r"cannot write .*file: .*No space left"):
        fetch(list(mirrors), tmp_path / "file", None)
    assert "https://two" in mirrors and not list(tmp_path.iterdir())
