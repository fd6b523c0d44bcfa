"""Cells of several runs, metrics that relate rows, and runs that failed: a table with records made for the purpose."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.config import CIRCUMSTANCES, compose_config, identity, resolve, to_dict
from benchmarks.site.details import commands, data_script
from benchmarks.site.results import TableResults, read_table
from benchmarks.site.tables import cells_table, table_page
from benchmarks.tables.archive import Archive, ArchivedRun
from benchmarks.tables.render import CSV_COLUMNS
from benchmarks.utils.paths import OWN_CONFIGS

FILE = """
title: Three rules
rows: [bp, dfa, shallow]
columns: [gcn]
overrides: [task=cora, "model={column}", "rule={row}"]
members: {"*": [trainer.epochs=1, trainer.epochs=2]}
data: cora
metrics:
  score: {record: test/accuracy, label: accuracy (%), factor: 100, decimals: 1}
  closed: {record: test/accuracy, label: share, relative_to: [shallow, bp]}
seeds: {paper: 2, mini: 2, smoke: 1}
selection: the last epoch
cost_seconds: {paper: {default: 1}, mini: {default: 1}, smoke: {default: 1}}
"""
ACCURACIES = {"bp": [(0.8, 0.9), (0.7, 0.8)], "dfa": [(0.6, 0.7), (0.5, 0.8)], "shallow": [(0.2, 0.4), (0.3, 0.3)]}
"""Rule → for each seed, of its two runs."""


def _run(rule: str, epochs: int, seed: int, **more: Any) -> tuple[str, ArchivedRun]:
    words = ["task=cora", "model=gcn", f"rule={rule}", f"trainer.epochs={epochs}", f"seed={seed}", "scale=mini"]
    config = resolve(compose_config([*words, "task.source=stand_in"]))
    some = next(iter(Archive.of("table_4").runs.values())).record
    record = {
        **some,
        **{
            "task": "cora",
            "model": "gcn",
            "rule": rule,
            "seed": seed,
            "scale": "mini",
            "config_hash": identity(config),
            "steps": 2,
        },
        "data": {"name": "cora", "kind": "stand-in", "checksums": {}, "notes": {}},
        "metrics": {"test/accuracy": ACCURACIES[rule][seed][epochs - 1]},
    }
    history = [{"epoch": 1, "step": 1, "valid/accuracy": 0.5}, {"epoch": 2, "step": 2, "valid/accuracy": float("nan")}]
    content = {key: value for key, value in to_dict(config).items() if key not in CIRCUMSTANCES}
    return identity(config), ArchivedRun(content, record | more, history)


def _table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: dict[str, ArchivedRun]) -> TableResults:
    (tmp_path / "table").mkdir()
    (tmp_path / "table" / "table_small.yaml").write_text(FILE)
    monkeypatch.setenv(OWN_CONFIGS, str(tmp_path))
    how: dict[str, Any] = {"scale": "mini", "why": "as asked", "seeds": None, "rules": []}
    Archive("table_small", how, runs).write(tmp_path)
    with (tmp_path / "table_small.csv").open("w", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(CSV_COLUMNS)
        for rule in ACCURACIES:
            for metric in ("score", "closed"):
                numbers = ["", "0.5", "", 2, "", ""]
                writer.writerow(["table_small", rule, "gcn", metric, *numbers, "mini", "stand-in", "done"])
    return read_table("table_small", tmp_path, tmp_path)


def test_a_seed_of_several_runs_has_their_mean_and_a_related_metric_its_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = dict(_run(rule, epochs, seed) for rule in ACCURACIES for epochs in (1, 2) for seed in (0, 1))
    table = _table(tmp_path, monkeypatch, runs)
    assert table.find("dfa-gcn-score").seeds == pytest.approx({0: 65.0, 1: 65.0})
    assert table.find("bp-gcn-score").seeds == pytest.approx({0: 85.0, 1: 75.0})
    # Frozen control 0.3 and backpropagation 0.8 on average.
    assert table.find("bp-gcn-closed").seeds == pytest.approx({0: 0.55 / 0.5, 1: 0.45 / 0.5})
    assert table.find("dfa-gcn-closed").seeds == pytest.approx({0: 0.7, 1: 0.7})
    assert len(table.runs["dfa:gcn"]) == 4


def test_a_page_says_how_far_the_records_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    some = _table(tmp_path, monkeypatch, dict([_run("dfa", epochs, seed) for epochs in (1, 2) for seed in (0, 1)]))
    assert "**4 runs** are committed as its records; not all of its numbers have theirs" in table_page(
        some, "# A\n", ""
    )


def test_a_cell_of_several_runs_has_a_command_for_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = _table(tmp_path, monkeypatch, dict([_run("dfa", 1, 0)])).find("dfa-gcn-score").cell
    assert cell is not None
    start = "python -m benchmarks train -m task=cora model=gcn rule=dfa"
    end = "task.source=stand_in scale=mini seed=0,1"
    assert commands(cell, "mini", [0, 1], "stand-in") == [f"{start} trainer.epochs={epochs} {end}" for epochs in (1, 2)]


def test_runs_that_failed_are_shown_and_count_for_no_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    diverged = _run(
        "dfa",
        1,
        1,
        status="diverged",
        metrics={"test/accuracy": 0.5, "train/loss": float("inf")},
        reason="the loss is inf",
    )
    table = _table(tmp_path, monkeypatch, dict([_run("dfa", 1, 0), _run("dfa", 2, 0), _run("dfa", 2, 1), diverged]))
    assert table.find("dfa-gcn-score").seeds == pytest.approx({0: 65.0})
    script = data_script(table)
    content = json.loads(script.removeprefix("window.tableData = ").rstrip().removesuffix(";"))
    shown = [run["record"]["status"] for run in content["cells"]["dfa:gcn"]["runs"]]
    assert sorted(shown) == ["diverged", "done", "done", "done"]
    assert content["cells"]["dfa:gcn"]["runs"][0]["curves"]["valid/accuracy"] == [0.5, None]


def test_names_cannot_break_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ACCURACIES, "<b>", ACCURACIES["dfa"])
    table = _table(tmp_path, monkeypatch, dict([_run("dfa", 1, 0)]))
    assert "<td>&lt;b&gt;</td>" in cells_table(table.results, table.spec.metrics)
