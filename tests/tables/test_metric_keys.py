"""Metrics that no run has: told apart from those that only some rows have."""

from dataclasses import replace
from typing import Any

import pytest

from benchmarks.commands import reproduce
from benchmarks.errors import ResultsError
from benchmarks.tables import targets
from benchmarks.tables.cells import Cell
from benchmarks.tables.footnotes import describe_gaps, describe_runs
from benchmarks.tables.metric_keys import check_keys
from benchmarks.tables.spec import TableSpec, load_spec
from benchmarks.tables.summary import CellOutcome, summarise
from tests.conftest import TOY, Command, Toys
from tests.helpers.tables import done, record


def _read_from(spec: TableSpec, key: str, **more: Any) -> TableSpec:
    metric = replace(spec.metrics["accuracy_percent"], record=key, **more)
    return replace(spec, metrics={"accuracy_percent": metric})


def _outcomes(spec: TableSpec, **metrics: float) -> dict[Cell, CellOutcome]:
    found = {"test/accuracy": 0.8, "valid/accuracy": 0.7} | metrics
    return {cell: done([record(found, scale="mini")]) for cell in spec.cells}


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("test/acuracy", "no run has 'test/acuracy'; did you mean 'test/accuracy'?"),
        ("valid/acuracy@3", "no run has 'valid/acuracy@3'; did you mean 'valid/accuracy@3'?"),
        ("valid/accuracy@3", "no run was evaluated at step 3, as 'valid/accuracy@3' asks"),
        ("second", "no run has 'second'; did you mean 'seconds'?"),
        ("status", "no run has 'status'"),
        ("zzz", "no run has 'zzz'"),
    ],
)
def test_a_metric_that_no_run_has_is_named(spec: TableSpec, key: str, told: str) -> None:
    with pytest.raises(ResultsError) as refused:
        check_keys(_read_from(spec, key), _outcomes(spec), "mini")
    assert str(refused.value) == f"metric 'accuracy_percent': {told}"


def test_the_key_of_some_cells_is_checked_among_these(spec: TableSpec) -> None:
    wrong = _read_from(spec, "test/accuracy", record_for={"gcn/*": "test/auc"})
    with pytest.raises(ResultsError, match="no run has 'test/auc'"):
        check_keys(wrong, _outcomes(spec), "mini")


@pytest.mark.parametrize("key", ["test/accuracy", "seconds", "valid/accuracy"])
def test_what_runs_have_is_let_through(spec: TableSpec, key: str) -> None:
    check_keys(_read_from(spec, key), _outcomes(spec), "mini")


def test_nothing_is_said_of_what_rows_yet_to_come_may_have(spec: TableSpec) -> None:
    """Alignment, say, in a table whose runs of backpropagation are done and whose others have diverged."""
    outcomes = _outcomes(spec)
    outcomes[spec.cells[0]] = CellOutcome((), 1, "diverged", "loss is NaN")
    check_keys(_read_from(spec, "alignment/mean"), outcomes, "mini")
    outcomes[spec.cells[0]] = done([record({"alignment/mean": 0.5}, scale="mini")])
    check_keys(_read_from(spec, "alignment/mean"), outcomes, "mini")


def test_few_steps_do_not_reach_every_step_that_a_table_shows(spec: TableSpec) -> None:
    outcomes = {cell: done([record({"valid/accuracy": 0.7}, scale="smoke")]) for cell in spec.cells}
    check_keys(_read_from(spec, "valid/accuracy@3"), outcomes, "smoke")


def test_footnotes_tell_what_is_done_and_what_it_lacks(spec: TableSpec) -> None:
    spec = _read_from(replace(spec, cells=spec.cells[:1]), "alignment/mean")
    outcomes = _outcomes(spec)
    entries = summarise(spec, outcomes, "mini")
    assert describe_gaps(entries) == [f"missing (1 of 1 seeds done; 1 without 'alignment/mean'): {spec.cells[0].name}"]
    assert "no seed has a value." in "\n".join(describe_runs(spec, outcomes, entries))


def test_the_command_refuses_and_leaves_the_table_on_disk_alone(
    toys: Toys, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = Cell("gcn/bp", "cora", ("task=toy", "model=toy_mlp", "rule=bp", "trainer.epochs=1"), data="toy")
    spec = _read_from(replace(load_spec("table_3"), cells=(cell,)), "test/acuracy")
    monkeypatch.setattr(targets, "load_spec", lambda name, **options: spec)
    settings = ["--set", f"plugins=[{TOY}]", "--set", "run.wandb=disabled", "--results", str(toys.results)]
    code, _, err = command(reproduce.main, "table_3", "--scale", "mini", "--seeds", "1", *settings)
    assert code == 2 and "table_3: metric 'accuracy_percent': no run has 'test/acuracy'; did you mean" in err
    assert err.count("\n") == 1 and not (toys.results / "tables").exists()
