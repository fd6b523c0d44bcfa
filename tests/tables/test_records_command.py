"""The command for records: what it checks and writes, and where."""

from pathlib import Path

import pytest

from benchmarks.commands import records as command_records
from benchmarks.commands import reproduce
from tests.conftest import Command, Toys
from tests.helpers.records import table_arguments


def test_tables_without_records_are_named(place: Path, toys: Toys, command: Command) -> None:
    command(reproduce.main, *table_arguments(place.parent), "--jobs", "1")
    command(command_records.main, "export", *table_arguments(place.parent))
    assert "not checked" not in command(command_records.main, "verify")[1]
    (place.parent / "tables" / "table_4.csv").write_text("")
    code, out, _ = command(command_records.main, "verify")
    assert code == 0 and out.splitlines()[1:] == ["not checked, as no records are committed: table_4"]
    assert "not checked" not in command(command_records.main, "verify", "table_3")[1]


def test_only_named_tables_are_rendered(command: Command) -> None:
    code, _, err = command(command_records.main, "render")
    assert code == 2 and err == "error: records render: name the tables that are to be written\n"
    code, _, err = command(command_records.main, "render", "figure_6")
    assert code == 2 and err == "error: figure_6 is a figure: `reproduce figure_6` draws it\n"


def test_with_a_results_folder_of_ones_own_nothing_is_written_beside_the_committed_records(
    place: Path, toys: Toys, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own"
    monkeypatch.setenv("DFA_RESULTS_DIR", str(own))
    assert command(reproduce.main, *table_arguments(own), "--jobs", "1")[0] == 0
    table = (own / "tables" / "table_3.md").read_bytes()
    (own / "tables" / "table_3.md").unlink()
    code, out, err = command(command_records.main, "export", *table_arguments(own))
    assert (code, err) == (0, "") and out.startswith(f"{own}/records/table_3.parquet: 4 runs of 4")
    assert command(command_records.main, "render", "table_3")[0] == 0
    assert (own / "tables" / "table_3.md").read_bytes() == table
    assert list(place.parent.rglob("*.*")) == []


def test_committed_records_of_no_table_are_not_checked(place: Path, toys: Toys, command: Command) -> None:
    assert command(reproduce.main, *table_arguments(place.parent), "--jobs", "1")[0] == 0
    assert command(command_records.main, "export", *table_arguments(place.parent))[0] == 0
    (place / "table_3.parquet").rename(place / "own_table.parquet")
    code, out, err = command(command_records.main, "verify")
    assert (code, err) == (0, "") and out.endswith("not checked, as there is no such table here: own_table\n")
    assert command(command_records.main, "verify", "own_table")[0] == 2
