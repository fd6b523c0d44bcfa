"""The ledger: every state of a run is reported, with its reason, and looking changes nothing."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.commands import status
from benchmarks.run.execute import execute
from benchmarks.run.records import RunFolder
from benchmarks.tables import archive, targets
from benchmarks.tables import plan as plan_module
from benchmarks.tables.cells import Cell
from benchmarks.tables.status import STATES, state_of
from tests.commands.test_reproduce import toy_table
from tests.conftest import RAISED_AT, TOY, Command, Toys
from tests.run.test_execute import _leave_at

_RULES = ("bp", "dfa", "shallow")


@pytest.fixture
def _toy_in_table_3(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(archive, "RECORDS", tmp_path / "records")  # those of the genuine table are not of this one
    shared = ("task=toy", "model=toy_mlp", "trainer.epochs=1")
    cells = tuple(Cell(f"gcn/{rule}", "cora", (*shared, f"rule={rule}"), data="toy") for rule in _RULES)
    spec = replace(toy_table(), cells=cells)
    monkeypatch.setattr(targets, "load_target", lambda name, rules: spec)
    monkeypatch.setattr(targets, "target_names", lambda names: ["table_3"])
    missing = "no shallow water here"
    monkeypatch.setattr(plan_module, "missing_data", lambda config: missing * (config.rule.name == "shallow"))


def _arguments(toys: Toys) -> list[str]:
    settings = ["--set", f"plugins=[{TOY}]", "--set", "run.wandb=disabled", "--set", "run.checkpoint_seconds=0"]
    return ["--scale", "paper", "--seeds", "3", "--results", str(toys.results), *settings]


def _snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*")}


@pytest.mark.usefixtures("_toy_in_table_3")
def test_every_state_is_counted_with_its_reason_and_looking_changes_nothing(
    toys: Toys, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def config(rule: str, seed: int, *more: str):  # type: ignore[no-untyped-def]
        return toys.config(f"rule={rule}", f"seed={seed}", "trainer.epochs=1", "run.checkpoint_seconds=0", *more)

    code, out, err = command(status.main, *_arguments(toys))
    assert (code, err) == (0, "") and " ".join(out.splitlines()[2].split()) == "table_3 paper 9 0 0 0 0 0 0 0 9"
    assert not toys.results.exists()

    execute(config("bp", 0))
    monkeypatch.setenv("TOY_FAULT", "nan@2")
    execute(config("bp", 1))
    monkeypatch.setenv("TOY_FAULT", "raise@2")
    execute(config("bp", 2))
    monkeypatch.delenv("TOY_FAULT")
    _leave_at(monkeypatch, config("dfa", 0), 3)
    execute(config("bp", 7, "optimizer.lr=0.5"))  # of no table
    with RunFolder.of(config("dfa", 1)).locked():
        before = _snapshot(toys.results)
        code, out, err = command(status.main, *_arguments(toys))
        assert _snapshot(toys.results) == before
    lines = out.splitlines()
    assert lines[0].split() == ["scale", "runs", *STATES]
    assert [line.split() for line in lines[2:4]] == [
        ["table_3", "paper", "9", "1", "0", "1", "1", "1", "1", "0", "4"],
        ["other", "runs", "1", "1", "0", "0", "0", "0", "0", "0", "0"],
    ]
    assert lines[5:] == [
        "table_3: 1 running: a process is at work on it (gcn/dfa:cora seed 1)",
        "table_3: 1 interrupted: goes on from its checkpoint (gcn/dfa:cora seed 0)",
        f"table_3: 1 failed: ZeroDivisionError: the toy is broken (toy.py, line {RAISED_AT}) (gcn/bp:cora seed 2)",
        "table_3: 1 diverged: the training loss is nan at step 5 (gcn/bp:cora seed 1)",
        "table_3: 1 missing: not run yet (gcn/dfa:cora seed 2)",
        "table_3: 3 missing: no shallow water here "
        "(gcn/shallow:cora seed 0, gcn/shallow:cora seed 1, gcn/shallow:cora seed 2)",
    ]
    assert command(status.main, "table_3", *_arguments(toys))[1].count("other runs") == 0


@pytest.mark.usefixtures("_toy_in_table_3")
def test_a_record_of_other_data_is_not_done(toys: Toys, command: Command) -> None:
    _, folder = toys.run("rule=bp", "trainer.epochs=1")
    assert command(status.main, "table_3", *_arguments(toys))[1].splitlines()[2].split()[3] == "1"
    record = json.loads(folder.result.read_text())
    record["inputs"]["plugins"] = dict.fromkeys(record["inputs"]["plugins"], "0" * 64)
    folder.result.write_text(json.dumps(record))
    out = command(status.main, "table_3", *_arguments(toys))[1]
    assert out.splitlines()[2].split()[3] == "0"
    assert "table_3: 1 missing: recorded, but from other data, from other code, or without the weights" in out


def test_unknown_names_are_refused(toys: Toys, command: Command) -> None:
    code, _, err = command(status.main, "table_99", "--results", str(toys.results))
    assert code == 2 and err.startswith("error: unknown table or figure 'table_99'; known: ") and err.count("\n") == 1


def test_a_record_that_cannot_be_read_is_damaged_and_says_so(toys: Toys) -> None:
    _, folder = toys.run()
    assert state_of(folder) == ("done", "")
    folder.result.write_text("{")
    state, reason = state_of(folder)
    assert state == "damaged" and f"'{folder.result}' cannot be read" in reason and "run.retry=true" in reason
    folder.result.unlink()
    assert state_of(folder) == ("missing", "not run yet")
