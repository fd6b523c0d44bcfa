"""The cache folder, and whether a folder is writable."""

from pathlib import Path

import pytest

from benchmarks.errors import DataError
from benchmarks.utils.paths import cache_dir, first_writable, writable


def test_cache_folder_is_the_one_asked_for_or_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DFA_CACHE_DIR", str(tmp_path / "mine"))
    assert cache_dir() == tmp_path / "mine"
    monkeypatch.setenv("DFA_CACHE_DIR", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_dir() == tmp_path / ".cache" / "dfa-benchmarks"


def test_writable_makes_the_folder_and_leaves_no_file(tmp_path: Path) -> None:
    assert writable(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_a_place_below_a_file_is_not_writable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert not writable(tmp_path / "file" / "folder")


def test_a_folder_marked_read_only_is_left_alone(tmp_path: Path) -> None:
    marked = tmp_path / "marked"
    marked.mkdir(mode=0o555)
    assert not writable(marked) and not writable(marked / "below")
    assert list(marked.iterdir()) == []


def test_the_first_of_the_folders_that_can_be_written_to_is_taken(tmp_path: Path) -> None:
    closed, opened = tmp_path / "closed", tmp_path / "opened"
    closed.mkdir(mode=0o555)
    assert first_writable([closed / "a", opened / "a", tmp_path], "it") == opened / "a"
    with pytest.raises(DataError, match=f"it can be written neither to {closed} nor {closed / 'b'}; set DFA_CACHE_DIR"):
        first_writable([closed, closed / "b"], "it")
