"""A reader never sees half a file."""

import os
import stat
from pathlib import Path

import pytest

from benchmarks.files import atomic_path, write_text


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
