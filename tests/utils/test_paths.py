"""The cache folder, and whether a folder is writable."""

from pathlib import Path

import pytest

from benchmarks.utils.paths import cache_dir, writable


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
