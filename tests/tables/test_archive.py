"""Committed records are written, read back and restored; altered records are refused, altered tables are found."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from benchmarks.commands import records as command_records
from benchmarks.commands import reproduce, status
from benchmarks.config import identity
from benchmarks.errors import ResultsError
from benchmarks.run.execute import execute
from benchmarks.run.records import RunFolder
from benchmarks.tables import archive, targets
from benchmarks.tables.archive import COMMITTED, Archive, collect, thinned
from benchmarks.tables.figure import FigureSpec
from benchmarks.tables.figure_file import FigureFile
from benchmarks.tables.plan import make_plan
from benchmarks.tables.status import group_of
from tests.commands.test_reproduce import toy_table
from tests.conftest import TOY, Command, Toys
from tests.helpers.records import table_arguments


def test_a_table_goes_into_records_and_comes_back_byte_for_byte(
    place: Path, toys: Toys, command: Command, tmp_path: Path
) -> None:
    results = place.parent
    assert command(reproduce.main, *table_arguments(results), "--jobs", "1")[0] == 0
    code, out, err = command(command_records.main, "export", *table_arguments(results))
    assert code == 0 and "4 runs of 4" in out, err
    table = {path.name: path.read_bytes() for path in (results / "tables").iterdir()}
    # In another place nothing has to be run, and the table is the same.
    elsewhere = tmp_path / "elsewhere"
    counts = command(status.main, *table_arguments(elsewhere))[1].splitlines()
    assert dict(zip(counts[0].split(), counts[2].split()[1:], strict=True))["committed"] == "4" and len(counts) == 3
    code, out, err = command(reproduce.main, *table_arguments(elsewhere), "--jobs", "1")
    assert code == 0 and "4 runs from committed records" in out and "0 runs to do" in out, err
    assert {path.name: path.read_bytes() for path in (elsewhere / "tables").iterdir()} == table
    restored = [json.loads(path.read_text()) for path in elsewhere.rglob("result.json")]
    assert [record[COMMITTED] for record in restored] == ["table_3"] * 4
    # Written again from what was restored, the file has the same bytes.
    before = (place / "table_3.parquet").read_bytes()
    command(command_records.main, "export", *table_arguments(elsewhere))
    assert (place / "table_3.parquet").read_bytes() == before


def test_committed_runs_that_diverged_are_not_counted_as_committed(
    place: Path, toys: Toys, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOY_FAULT", "nan@2")
    command(reproduce.main, *table_arguments(place.parent), "--jobs", "1")
    command(command_records.main, "export", *table_arguments(place.parent))
    lines = command(status.main, *table_arguments(tmp_path / "elsewhere"))[1].splitlines()
    counts = dict(zip(lines[0].split(), lines[2].split()[1:], strict=True))
    assert counts["diverged"] == "4" and counts["committed"] == "0" and "the training loss is nan" in lines[4]


def test_one_digit_is_noticed(place: Path, toys: Toys, command: Command) -> None:
    results = place.parent
    command(reproduce.main, *table_arguments(results), "--jobs", "1")
    command(command_records.main, "export", *table_arguments(results))
    assert command(command_records.main, "verify")[0] == 0
    table = results / "tables" / "table_3.csv"
    text = table.read_text()
    digit = next(place for place in range(len(text) - 1, 0, -1) if text[place].isdigit())
    table.write_text(text[:digit] + str((int(text[digit]) + 1) % 10) + text[digit + 1 :])
    code, out, _ = command(command_records.main, "verify")
    assert code == 1 and "table_3.csv is not what its records give" in out
    committed, made = out.splitlines()[1:3]
    assert committed.startswith("  table_3.csv, committed: ") and made.startswith("  table_3.csv, made:      ")
    changed, right = (line.split(": ", 1)[1].strip().strip("…") for line in (committed, made))
    assert changed != right and right in text and changed in table.read_text()
    table.write_text(text)
    path = place / "table_3.parquet"
    content = pq.read_table(path)
    rows = content.to_pylist()
    rows[0]["record"] = rows[0]["record"].replace('"epochs": 1', '"epochs": 2')
    pq.write_table(type(content).from_pylist(rows).replace_schema_metadata(content.schema.metadata), path)
    code, _, err = command(command_records.main, "verify")
    assert code == 2 and "were altered" in err and err.count("\n") == 1


def test_one_digit_of_a_record_with_the_right_checksum_is_noticed(place: Path, toys: Toys, command: Command) -> None:
    command(reproduce.main, *table_arguments(place.parent), "--jobs", "1")
    command(command_records.main, "export", *table_arguments(place.parent))
    archived = Archive.of("table_3", place)
    key, run = next(iter(archived.runs.items()))
    metrics = {**run.record["metrics"], "test/accuracy": run.record["metrics"]["test/accuracy"] - 0.001}
    altered = replace(run, record={**run.record, "metrics": metrics})
    replace(archived, runs={**archived.runs, key: altered}).write(place)
    code, out, _ = command(command_records.main, "verify")
    assert code == 1 and "table_3.md is not what its records give" in out


def test_no_path_of_a_machine_gets_into_an_archive(toys: Toys, tmp_path: Path) -> None:
    record, folder = toys.run()
    config = toys.config()
    found = collect("toys", {}, [config]).archive.runs[identity(config)]
    assert not {"run", "launcher", "plugins"} & set(found.config)
    assert str(toys.results) not in json.dumps([found.config, found.record, found.history])
    archived = Archive("toys", {}, {identity(config): found})
    other = toys.elsewhere("other")
    assert archived.restore([other.config()]) == 1
    restored = RunFolder.of(other.config())
    assert restored.read() == {**record, COMMITTED: "toys"} and restored.history() == folder.history()
    assert archived.restore([other.config()]) == 0  # nothing is overwritten


def test_the_folder_of_a_run_that_another_process_is_at_work_on_is_left_alone(
    place: Path, toys: Toys, command: Command, tmp_path: Path
) -> None:
    command(reproduce.main, *table_arguments(place.parent), "--jobs", "1")
    command(command_records.main, "export", *table_arguments(place.parent))
    busy = next(place.parent.glob("runs/toy/toy_mlp/dfa/seed1-*")).relative_to(place.parent)
    for results in (place.parent, tmp_path / "elsewhere"):
        shutil.rmtree(results / "runs", ignore_errors=True)
        folder = RunFolder(results / busy)
        with folder.locked():
            folder.checkpoint.write_bytes(b"of the run that is at work")
            code, out, _ = command(command_records.main, "import", *table_arguments(results))
            assert code == 0 and "3 of 4 runs put back" in out
            assert command(reproduce.main, *table_arguments(results), "--jobs", "1", "--force")[0] == 0
            assert sorted(path.name for path in folder.path.iterdir()) == [".lock", "checkpoint.pt"]
        told = "(1 of 2 seeds done; another process is at work on it): gcn/dfa:cora"
        assert told in (results / "tables" / "table_3.md").read_text()
        assert "1 of 4 runs put back" in command(command_records.main, "import", *table_arguments(results))[1]
        assert not folder.checkpoint.exists() and folder.result.exists()


@pytest.mark.parametrize("length", [1, 99, 100, 101, 1234])
def test_thinned_histories_keep_the_best_and_the_last(length: int) -> None:
    history = [{"step": step} for step in range(1, length + 1)]
    kept = [row["step"] for row in thinned(history, {"best_step": max(1, length // 3)})]
    assert kept == sorted(set(kept)) and len(kept) <= 101
    assert kept[-1] == length and max(1, length // 3) in kept


def test_a_damaged_file_of_the_repository_says_how_it_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command
) -> None:
    monkeypatch.setattr(archive, "REPOSITORY", tmp_path)
    monkeypatch.setattr(archive, "RECORDS", tmp_path / "results" / "records")
    archive.RECORDS.mkdir(parents=True)
    (archive.RECORDS / "table_4.parquet").write_bytes(b"PAR1 nonsense")
    code, out, err = command(status.main, "table_4", "--results", str(tmp_path / "other"))
    path = archive.RECORDS / "table_4.parquet"
    assert (code, out) == (2, "") and err == (
        f"error: table_4: the records in '{path}' cannot be read, they are no archive (ArrowInvalid);"
        " `git restore results/records/table_4.parquet` brings the committed ones back\n"
    )


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "toys.parquet").write_bytes(b"nonsense")
    with pytest.raises(ResultsError, match="cannot be read"):
        Archive.of("toys", tmp_path)
    assert not Archive.of("others", tmp_path).runs
    assert replace(Archive("toys"), table="x").write(tmp_path).exists()


def test_the_usual_scale_is_that_of_complete_records(place: Path, toys: Toys, command: Command, tmp_path: Path) -> None:
    command(reproduce.main, *table_arguments(place.parent), "--jobs", "1")
    command(command_records.main, "export", *table_arguments(place.parent))
    arguments = [word for word in table_arguments(tmp_path / "elsewhere") if word not in ("--scale", "mini")]
    code, out, err = command(reproduce.main, *arguments, "--jobs", "1")
    assert (
        code == 0 and "scale mini (that of the committed records)" in out and "4 runs from committed records" in out
    ), err
    tables = [folder / "tables" / "table_3.md" for folder in (place.parent, tmp_path / "elsewhere")]
    assert tables[0].read_bytes() == tables[1].read_bytes()


def test_a_table_of_which_a_run_is_not_recorded_is_checked_too(place: Path, toys: Toys, command: Command) -> None:
    command(reproduce.main, *table_arguments(place.parent), "--jobs", "1")
    results = sorted(place.parent.rglob("result.json"))
    shutil.rmtree(results[0].parent)
    command(command_records.main, "export", *table_arguments(place.parent))
    code, out, _ = command(command_records.main, "verify")
    assert code == 1 and "3 of 4 runs recorded; table_3.md is not what its records give" in out
    for path in (place.parent / "tables").iterdir():
        path.unlink()
    code, out, err = command(command_records.main, "render", "table_3")
    assert code == 0 and out.count("table_3.") == 3, err
    assert "(1 of 2 seeds)" in (place.parent / "tables" / "table_3.md").read_text()
    code, out, _ = command(command_records.main, "verify")
    assert code == 0 and "3 of 4 runs recorded; the table is what they give" in out


def _deleted(path: Path) -> None:
    path.with_name("metrics.jsonl").unlink()


def _garbled(path: Path) -> None:
    path.with_name("metrics.jsonl").write_text("nonsense")


def _of_other_code(path: Path) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "inputs": {"data": {}, "plugins": {TOY.name: "0" * 64}}}))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda path: path.write_text("{"), "its record '.*' cannot be read"),
        (_deleted, "the history '.*' is missing or empty"),
        (_garbled, "the history '.*' is damaged: line 1"),
        (_of_other_code, "it was made with other code of plug-ins"),
    ],
)
def test_a_run_that_cannot_be_committed_is_named(
    place: Path, toys: Toys, command: Command, damage: Callable[[Path], object], reason: str
) -> None:
    command(reproduce.main, *table_arguments(place.parent), "--jobs", "1")
    damage(next(place.parent.glob("runs/toy/toy_mlp/dfa/seed1-*/result.json")))
    code, out, err = command(command_records.main, "export", *table_arguments(place.parent))
    assert code == 1 and "3 runs of 4" in out
    assert re.fullmatch(f"error: toy toy_mlp dfa seed 1 is left out: {reason}[^\n]*\n", err)


@pytest.mark.parametrize("sparse", [False, True])
def test_richer_records_and_tables_are_kept_unless_forced(
    place: Path, toys: Toys, command: Command, monkeypatch: pytest.MonkeyPatch, sparse: bool
) -> None:
    spec = toy_table()
    spec = replace(spec, file=replace(spec.file, sparse=sparse))
    monkeypatch.setattr(targets, "load_spec", lambda name, **options: spec)
    results, table = place.parent, place.parent / "tables" / "table_3.csv"
    path = place / "table_3.parquet"
    command(reproduce.main, *table_arguments(results), "--jobs", "1")
    export = ("export", *table_arguments(results))
    assert command(command_records.main, *export)[0] == 0
    full = path.read_bytes(), table.read_bytes()
    for folder in results.glob("runs/toy/toy_mlp/dfa/seed*"):
        folder.rename(results / folder.name)

    code, _, err = command(command_records.main, *export)
    kept = f"error: table_3: 2 runs, 2 of them done; the records in '{path}' are of 4, 4 of them done, and are kept"
    assert (code, err) == (2, f"{kept} (see --force)\n") and path.read_bytes() == full[0]
    assert command(command_records.main, *export, "--force")[0] == 0
    assert len(Archive.of("table_3").runs) == 2

    code, _, err = command(command_records.main, "render", "table_3")
    assert (code, err.count("\n")) == (1, 1) and "has 2 and is kept" in err
    assert err.startswith("error: table_3: 1 results; the table in")
    assert table.read_bytes() == full[1]
    assert command(command_records.main, "render", "table_3", "--force")[0] == 0
    assert table.read_bytes() != full[1]

    # Records that gained runs need no force.
    for folder in results.glob("seed*"):
        folder.rename(results / "runs" / "toy" / "toy_mlp" / "dfa" / folder.name)
    assert command(command_records.main, *export)[0] == command(command_records.main, "render", "table_3")[0] == 0
    assert (path.read_bytes(), table.read_bytes()) == full


def test_records_that_cannot_be_read_are_replaced_only_by_force(place: Path, toys: Toys, command: Command) -> None:
    command(reproduce.main, *table_arguments(place.parent), "--jobs", "1")
    path = place / "table_3.parquet"
    path.write_bytes(b"nonsense")
    code, _, err = command(command_records.main, "export", *table_arguments(place.parent))
    assert code == 2 and "cannot be read" in err and err.count("\n") == 1 and path.read_bytes() == b"nonsense"
    code, out, _ = command(command_records.main, "export", *table_arguments(place.parent), "--force")
    assert code == 0 and "4 runs of 4" in out


def test_status_tells_of_committed_runs_without_the_weights_that_a_figure_needs(place: Path, toys: Toys) -> None:
    target = FigureSpec(
        "figure_0", FigureFile("", "", {}, {"mini": 1.0, "paper": 1.0}, weights=True), toy_table().cells
    )
    settings = [item for item in toys.overrides if item.startswith(("plugins", "run."))]
    plan = make_plan(target, "mini", None, settings, 1)
    config = plan.runs[0].config
    execute(config)
    how: dict[str, object] = {"scale": "mini", "why": "as asked", "seeds": None, "rules": []}
    collect("figure_0", how, [config]).archive.write()
    shutil.rmtree(RunFolder.of(config).path)
    reasons = [(run.state, run.reason) for run in group_of(plan).runs]
    told = "its record is committed, but a figure needs its weights, so that it is trained again"
    assert reasons == [("missing", told), ("missing", "not run yet")]
