"""What a table's page shows of its cells: numbers, commands and the runs behind them, as data for its script."""

import json
import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from benchmarks.site.results import Result, TableResults
from benchmarks.tables.archive import ArchivedRun
from benchmarks.tables.cells import Cell
from benchmarks.tables.summary import STAND_IN

_DIGITS = 6
"""Significant digits of curves: more than a plot can show."""


def data_script(table: TableResults) -> str:
    """Return a script that hands the numbers and runs of a table to its page.

    A script and not a JSON file, because browsers do not let pages opened from disk read other files.
    """
    spec = table.spec
    content = {
        "table": spec.name,
        "heading": spec.heading,
        "scale": table.scale,
        "recorded": bool(table.archive.runs),
        "metrics": {
            name: {"label": metric.label, "decimals": metric.decimals, "higher": metric.higher_is_better}
            for name, metric in spec.metrics.items()
        },
        "cells": {name: _cell(table, name, results) for name, results in table.cells()},
    }
    return f"window.tableData = {json.dumps(content, ensure_ascii=False, allow_nan=False)};\n"


def commands(cell: Cell, scale: str, seeds: Sequence[int], data: str) -> list[str]:
    """Return the command lines that make a cell's runs: one, or one for each run that a seed takes.

    Args:
        cell: of a table.
        scale: of the runs.
        seeds: of the runs.
        data: kind of data that they were made with, as in a table's CSV file.
    """
    source = ["task.source=stand_in"] if data == STAND_IN else []
    seed = f"seed={','.join(map(str, seeds))}"
    many = ["-m"] if len(seeds) > 1 else []
    return [
        shlex.join(["python", "-m", "benchmarks", "train", *many, *overrides, *source, f"scale={scale}", seed])
        for overrides in cell.runs_at(scale)
    ]


def _cell(table: TableResults, name: str, results: Sequence[Result]) -> dict[str, Any]:
    first, runs = results[0], table.runs.get(name, ())
    cell, scale = first.cell, first.scale
    seeds = sorted({int(run.record["seed"]) for run in runs}) or list(range(max(result.n for result in results)))
    return {
        "row": first.row,
        "column": first.column,
        "rule": cell.rule if cell is not None else "",
        "control": cell is not None and cell.control,
        "status": first.status,
        "data": first.data,
        "results": [_number(result) for result in results],
        "commands": commands(cell, scale, seeds, first.data) if cell is not None and seeds else [],
        "runs": [_run(run) for run in runs],
        "config": _configuration(runs),
    }


def _number(result: Result) -> dict[str, Any]:
    return {
        "metric": result.metric,
        "anchor": result.anchor,
        "paper": result.paper,
        "mean": result.mean,
        "std": result.std,
        "n": result.n,
        "within": result.within,
        "seeds": [[seed, value] for seed, value in result.seeds.items()],
    }


def _run(run: ArchivedRun) -> dict[str, Any]:
    return {"record": _finite(run.record), "curves": _curves(run.history)}


def _configuration(runs: Sequence[ArchivedRun]) -> str:
    """Return the first run's configuration as YAML, which those of the other seeds equal but for the seed."""
    return yaml.safe_dump(dict(runs[0].config), sort_keys=False, allow_unicode=True) if runs else ""


def _curves(history: Sequence[Mapping[str, Any]]) -> dict[str, list[float | None]]:
    """Return the columns of a history: steps, and what was measured in training and on validation."""
    names = dict.fromkeys(key for row in history for key in row if key.startswith(("train/", "valid/")))
    return {name: [_rounded(row.get(name)) for row in history] for name in ("step", *names)}


def _rounded(value: object) -> float | None:
    if not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return value if isinstance(value, int) else float(f"{value:.{_DIGITS}g}")


def _finite(value: Any) -> Any:
    """Replace numbers that JSON does not have by their names."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [_finite(item) for item in value]
    return value
