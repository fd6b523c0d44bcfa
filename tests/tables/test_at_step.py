"""Metrics that are read at a step of training."""

import json
from pathlib import Path

import pytest

from benchmarks.config import compose_config, identity, resolve
from benchmarks.run.describe import outline
from benchmarks.run.records import RunFolder
from benchmarks.tables.at_step import with_metrics_at_steps
from benchmarks.tables.make import collected
from benchmarks.tables.plan import Plan, PlannedRun
from benchmarks.tables.spec import load_spec
from benchmarks.tables.summary import summarise
from tests.helpers.tables import cell_of, done, record

HISTORY = [{"step": step, "valid/perplexity": 100.0 - step} for step in (10, 20, 30)]


def test_metrics_come_from_the_row_of_their_step() -> None:
    plain = record({"valid/perplexity": 68.0}, 0)
    found = with_metrics_at_steps(plain, HISTORY, ["valid/perplexity@20", "valid/perplexity@15", "valid/loss@20", "x"])
    assert found["metrics"] == {"valid/perplexity": 68.0, "valid/perplexity@20": 80.0}
    assert plain["metrics"] == {"valid/perplexity": 68.0}


@pytest.mark.parametrize("key", ["valid/perplexity", "valid/perplexity@15", "valid/perplexity@last"])
def test_what_is_not_there_adds_nothing(key: str) -> None:
    plain = record({"valid/perplexity": 68.0}, 0)
    assert with_metrics_at_steps(plain, HISTORY, [key]) is plain


def test_columns_of_steps_share_a_run(tmp_path: Path) -> None:
    """One run of each rule fills four columns; ratios are between equal steps."""
    spec = load_spec("table_6_long")
    steps, by_rule = (1000, 2000, 5000, 10000), {"bp": 1.0, "identity": 1.25}
    cells = [cell_of(spec, row, f"pre_8_{step}") for row in by_rule for step in steps]
    place = ["scale=mini", f"run.results_dir={tmp_path}"]
    planned = [
        PlannedRun(cell, resolve(compose_config([*cell.runs[0], *place])), record=None, missing="", seconds=0.0)
        for cell in cells
    ]
    found = {identity(run.config): (run.config, by_rule[run.cell.row]) for run in planned}
    assert len(found) == 2
    for config, factor in found.values():
        folder = RunFolder.of(config)
        folder.path.mkdir(parents=True)
        rows = [{"step": step, "valid/perplexity": factor * 1e6 / step} for step in steps]
        folder.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
        folder.finish({**outline(config), "status": "done", "best_valid": 1.0, "metrics": {"valid/perplexity": 1.0}})
    runs = collected(Plan(spec, "mini", "", tuple(planned)), {})
    outcomes = {run.cell: done([run.record]) for run in runs if run.record is not None}
    entries = {(entry.cell.name, entry.metric): entry for entry in summarise(spec, outcomes, "mini")}
    for step in steps:
        assert entries[f"identity:pre_8_{step}", "perplexity"].mean == pytest.approx(1.25e6 / step)
        assert entries[f"identity:pre_8_{step}", "perplexity_ratio"].mean == pytest.approx(1.25)
    assert entries["identity:pre_4_1000", "perplexity"].status == "missing"
