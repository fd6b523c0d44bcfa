"""Committed records of any content, with the right checksum: named in one line, and nothing is made of them."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.commands import records, reproduce
from benchmarks.tables import archive, committed
from benchmarks.tables.archive import COMMITTED
from tests.conftest import Command
from tests.hostile.cases import assert_refused, carried_out

TABLE = "table_a1"
GENUINE = archive.RECORDS / f"{TABLE}.parquet"
PARTS = ("config", "record", "history")

Row = dict[str, Any]
Change = Callable[[list[Row]], object]
"""Alters the rows of an archive, whose parts are read, in place."""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The archive of a table, alone in its folder."""
    folder = tmp_path / "committed" / "records"
    folder.mkdir(parents=True)
    monkeypatch.setattr(archive, "RECORDS", folder)
    return Path(shutil.copy(GENUINE, folder))


def _part(name: str, value: Any) -> Change:
    return lambda rows: rows[1].update({name: value})


def _section(name: str, **more: Any) -> Change:
    return lambda rows: rows[1]["config"][name].update(more)


def _record(**more: Any) -> Change:
    return lambda rows: rows[1]["record"].update(more)


def _swapped(rows: list[Row]) -> None:
    rows[0]["record"], rows[1]["record"] = rows[1]["record"], rows[0]["record"]


ROWS: dict[str, tuple[Change, str]] = {
    "config of a list": (_part("config", [1]), "has a configuration that is not an object"),
    "config of null": (_part("config", None), "has a configuration that is not an object"),
    "empty config": (_part("config", {}), "has a configuration that lacks 'task'"),
    "config without a rule": (lambda rows: rows[1]["config"].pop("rule"), "has a configuration that lacks 'rule'"),
    "rule of a word": (lambda rows: rows[1]["config"].update(rule="dfa"), "has 'dfa' for 'rule'"),
    "trainer of a list": (lambda rows: rows[1]["config"].update(trainer=[]), "has a list for 'trainer'"),
    "options of a list": (_section("rule", options=[1]), "has a list for 'options'"),
    "another learning rate": (_section("optimizer", lr=9.0), "has the configuration of another run"),
    "another option": (_section("model", options={}), "has the configuration of another run"),
    "another identity": (_part("identity", "0" * 12), "run '000000000000' has the configuration of another run"),
    "two records swapped": (_swapped, "has a record that is of another run"),
    "another config_hash": (_record(config_hash="0" * 12), r"is of another run \(identity '000000000000'\)"),
    "another rule": (_record(rule="toy"), r"is of another run \(rule 'toy'\)"),
    "another task": (_record(task="../../../../x"), r"is of another run \(task '\.\./"),
    "another seed": (_record(seed=77), r"is of another run \(seed 77\)"),
    "another scale": (_record(scale="paper"), r"is of another run \(scale 'paper'\)"),
    "record of null": (_part("record", None), "has a record that is not an object"),
    "record of a list": (_part("record", []), "has a record that is not an object"),
    "half a surrogate pair": (_record(note="\ud800"), "has a record that holds text that cannot be printed"),
    "history of null": (_part("history", None), "has a history that is damaged: it is no list"),
    "history of an object": (_part("history", {}), "has a history that is damaged: it is no list"),
    "history of words": (_part("history", ["a"]), "line 1 is not that of an evaluation"),
    "history of texts": (_part("history", [{"step": 1, "valid": "0.5"}]), "line 1 is not that of an evaluation"),
    "history of huge numbers": (_part("history", [{"step": 1, "v": 10**400}]), "line 1 is not that of an evaluation"),
    "no history": (_part("history", []), "has a history that is missing or empty"),
    "half a history": (lambda rows: rows[1]["history"].pop(), "has a history that ends at step"),
    "a run twice": (lambda rows: rows.append(rows[0]), "is in them twice"),
}
HOWS: dict[str, tuple[Any, str]] = {
    "a list": ([1], "how they were made is not an object"),
    "seeds in words": ({"seeds": "x"}, "has 'x' for 'seeds'"),
    "half a seed": ({"seeds": 1.5}, "has 1.5 for 'seeds'"),
    "no seed": ({"seeds": 0}, "has 0 for 'seeds'"),
    "rules of null": ({"rules": None}, "has None for 'rules', which must be a list of names"),
    "rules of numbers": ({"rules": [1]}, "has a list for 'rules'"),
    "rules in a word": ({"rules": "dfa"}, "has 'dfa' for 'rules'"),
    "unknown scale": ({"scale": "huge"}, "has 'huge' for 'scale'"),
    "scale of a list": ({"scale": ["mini"]}, "has a list for 'scale'"),
    "reason of two lines": ({"why": "one\ntwo"}, "for 'why', which must be a line of text"),
}


def _rewrite(path: Path, change: Change, how: Any = None) -> None:
    """Alter an archive, and give it the checksum of what it holds now."""
    content = pq.read_table(path)
    head = json.loads(content.schema.metadata[archive._KEY])
    rows = [{**row, **{name: json.loads(row[name]) for name in PARTS}} for row in content.to_pylist()]
    change(rows)
    rows = [{**row, **{name: json.dumps(row[name]) for name in PARTS}} for row in rows]
    head["how"] = {**head["how"], **how} if isinstance(how, dict) else how or head["how"]
    head["sha256"] = archive._checksum(rows)
    altered = pa.Table.from_pylist(rows).replace_schema_metadata({archive._KEY: json.dumps(head).encode()})
    pq.write_table(altered, path)


def _assert_refused_everywhere(command: Command, folder: Path, message: str, table: str = TABLE) -> None:
    own = ["--results", str(folder / "own")]
    for main, words in (
        (records.main, ["verify", table]),
        (records.main, ["import", table, *own]),
        (reproduce.main, [table, "--dry", *own]),
    ):
        assert_refused(carried_out(command, main, words, folder), message)


@pytest.mark.parametrize("case", ROWS)
def test_a_row_that_is_not_its_runs_is_named(place: Path, tmp_path: Path, command: Command, case: str) -> None:
    change, message = ROWS[case]
    _rewrite(place, change)
    _assert_refused_everywhere(command, tmp_path, f"the records in '{place}' cannot be used: .*{message}")


@pytest.mark.parametrize("case", HOWS)
def test_how_they_were_made_is_checked(place: Path, tmp_path: Path, command: Command, case: str) -> None:
    how, message = HOWS[case]
    _rewrite(place, lambda rows: None, how)
    _assert_refused_everywhere(command, tmp_path, f"the records in '{place}' cannot be used: .*{message}")


FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a link to nothing": (lambda path: path.symlink_to("nowhere"), "No such file"),
    "a link to itself": (lambda path: path.symlink_to(path.name), "[Ss]ymbolic links"),
    "a link to nothing that ends": (lambda path: path.symlink_to("/dev/zero"), "it is not a file"),
    "a pipe": (os.mkfifo, "it is not a file"),
    "a folder": (Path.mkdir, "it is a folder"),
    "nothing": (Path.touch, "they are no archive"),
    "another parquet": (lambda path: pq.write_table(pa.table({"a": [1]}), path), "they are no archive"),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", FILES)
def test_what_cannot_be_read_is_not_taken_for_no_archive(
    place: Path, tmp_path: Path, command: Command, kind: str
) -> None:
    make, message = FILES[kind]
    place.unlink()
    make(place)
    _assert_refused_everywhere(command, tmp_path, f"the records in '{place}' cannot be read.*{message}")


def test_records_of_another_table_are_refused(place: Path, tmp_path: Path, command: Command) -> None:
    place.rename(place.with_stem("table_a3"))
    _assert_refused_everywhere(command, tmp_path, "(belong to|are of) none of its runs", "table_a3")


def test_settings_that_make_other_runs_are_no_other_table(place: Path, tmp_path: Path, command: Command) -> None:
    words = [TABLE, "--dry", "--results", str(tmp_path / "own"), "--set", "trainer.patience=77", "--scale", "mini"]
    code, out, err = command(reproduce.main, *words)
    assert code == 0 and "from committed records" not in out, err


def test_every_table_is_verified_though_one_cannot_be(place: Path, command: Command) -> None:
    _rewrite(Path(shutil.copy(GENUINE, place.with_name("table_1.parquet"))), _part("history", None))
    code, out, err = command(records.main, "verify")
    assert code == 2 and err.count("\n") == 1 and "table_1.parquet' cannot be used" in err
    assert out.startswith(f"{TABLE}: 6 of 6 runs recorded")


def test_a_full_disk_leaves_no_part_of_a_run(
    place: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []

    def flush(handle: int) -> None:
        written.append(handle)
        if len(written) > 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", flush)
    code, _, err = command(records.main, "import", TABLE, "--results", str(tmp_path / "own"))
    start = f"error: cannot write to the results folder '{tmp_path}/own/runs/"
    assert code == 2 and err.startswith(start) and err.endswith(": No space left on device\n") and err.count("\n") == 1
    files = [path for path in (tmp_path / "own").rglob("*") if path.is_file()]
    assert sorted(path.name for path in files) == [".lock", "config.yaml", "metrics.jsonl", "result.json"]
    monkeypatch.undo()
    monkeypatch.setattr(archive, "RECORDS", place.parent)
    code, out, _ = command(records.main, "import", TABLE, "--results", str(tmp_path / "own"))
    assert code == 0 and "5 of 6 runs put back" in out
    restored = [json.loads(path.read_text())[COMMITTED] for path in (tmp_path / "own").rglob("result.json")]
    assert restored == [TABLE] * 6


@pytest.mark.parametrize("main", [records.main, reproduce.main])
def test_a_results_folder_that_is_none(place: Path, command: Command, main: Callable[[], None]) -> None:
    words = [TABLE, "--results", "/dev/null"]
    code, _, err = command(main, *(["import", *words] if main is records.main else words))
    assert code == 2 and err.count("\n") == 1
    assert "cannot write to the results folder '/dev/null/runs/" in err and err.endswith(": Not a directory\n")


def test_an_interruption_promises_no_checkpoint(place: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(committed, "verify", interrupted)
    assert command(records.main, "verify", TABLE) == (130, "", "interrupted\n")
