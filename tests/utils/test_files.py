"""Atomic files and folders: a reader never sees half of one."""

import os
import stat
from pathlib import Path

import pytest

from benchmarks.errors import ResultsError
from benchmarks.utils.files import atomic_path, unfinished_folder, write_results, write_text


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


def test_a_file_is_on_disk_before_it_replaces_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "table.md"
    target.write_text("old")
    flushed: list[tuple[int, str]] = []
    flush = os.fsync

    def noted(handle: int) -> None:
        flushed.append((os.fstat(handle).st_ino, target.read_text()))
        flush(handle)

    monkeypatch.setattr(os, "fsync", noted)
    write_text(target, "new")
    assert flushed == [(target.stat().st_ino, "old")]


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


def test_files_that_belong_together_are_all_replaced_or_none(tmp_path: Path) -> None:
    table, picture = tmp_path / "table.md", tmp_path / "file" / "table.csv"
    write_results({table: "old"})
    (tmp_path / "file").write_text("in the place of a folder")
    with pytest.raises(ResultsError, match=r"cannot write .*table\.csv"):
        write_results({table: "new", picture: "new"})
    assert table.read_text() == "old" and {path.name for path in tmp_path.iterdir()} == {"table.md", "file"}
    (tmp_path / "file").unlink()
    assert write_results({table: "new", picture: "new"}) == [table, picture]
    assert table.read_text() == picture.read_text() == "new"
