"""Synthetic records and their places in tables, for the tests of tables."""

from pathlib import Path
from typing import Any

import yaml

from benchmarks.tables.cells import Cell
from benchmarks.tables.published import load_reference
from benchmarks.tables.spec import TableSpec, load_spec
from benchmarks.tables.summary import CellOutcome, Entry, summarise
from benchmarks.utils.paths import config_files


def record(
    metrics: dict[str, float], seed: int = 0, name: str = "cora", kind: str = "real", scale: str = "paper", **more: Any
) -> dict[str, Any]:
    data = {"name": name, "kind": kind, "checksums": {}, "notes": more.pop("notes", {})}
    fixed = {"seconds": 60.0, "peak_memory_mb": 200.0, "device": "cpu: a_b", "versions": {"torch": "2.6"}}
    description = {"status": "done", "commit": "abc1234", "git_dirty": False, "data": data}
    return {"metrics": metrics, "seed": seed, "scale": scale, "config_hash": ""} | fixed | description | more


def accuracies(*values: float, **more: Any) -> list[dict[str, Any]]:
    return [record({"test/accuracy": value}, seed=seed, **more) for seed, value in enumerate(values)]


def cell_of(spec: TableSpec, row: str, column: str = "") -> Cell:
    (found,) = [cell for cell in (*spec.cells, *spec.quoted) if (cell.row, cell.column) == (row, column)]
    return found


def done(records: list[dict[str, Any]]) -> CellOutcome:
    return CellOutcome(records, len(records), "done")


def entry_of(rows: list[Entry], row: str, column: str = "", metric: str = "") -> Entry:
    (found,) = [e for e in rows if (e.cell.row, e.cell.column) == (row, column) and e.metric in (metric or e.metric,)]
    return found


def one_cell(values: list[float], row: str = "gcn/dfa", status: str = "done", **more: Any) -> Entry:
    spec = load_spec("table_3")
    cell = cell_of(spec, row, "cora")
    outcome = CellOutcome(accuracies(*values, **more), len(values) + (status != "done"), status)
    return entry_of(summarise(spec, {cell: outcome}, more.get("scale", "paper")), row, "cora")


def numbers_of(table: str) -> set[str]:
    """Every published number of a table, as Markdown would print it."""
    return {f"{value:.1f}" for value in load_reference(table).values.values()}


def language_entries() -> tuple[TableSpec, list[Entry], dict[Cell, CellOutcome]]:
    """Table 5 with a few cells: one with three seeds, as its file asks of that column at the mini scale."""
    spec = load_spec("table_5")
    alignment = {"alignment/blocks.0/mean": 0.5, "alignment/blocks.0.hidden/mean": 0.1, "alignment/last/mean": 0.25}

    def run(perplexity: float, seed: int = 0) -> dict[str, Any]:
        metrics = {"valid/perplexity": perplexity, "valid/word_perplexity": 2 * perplexity}
        more = {name: value + seed for name, value in alignment.items()}
        return record(metrics | more, seed, "wikitext103", "stand-in", "mini")

    outcomes = {
        cell_of(spec, "dfa_macro", "baseline"): done([run(20.0)]),
        cell_of(spec, "dfa_macro", "one_cycle"): done([run(15.0), run(17.0, 1)]),
        cell_of(spec, "bp", "baseline"): done([run(10.0)]),
        cell_of(spec, "shallow", "baseline"): done([run(50.0)]),
    }
    return spec, summarise(spec, outcomes, "mini"), outcomes


def edited(folder: Path, name: str = "table_4", drop: tuple[str, ...] = (), **changes: object) -> Path:
    """A folder with one table file, changed."""
    content = yaml.safe_load(config_files("table")[name].read_text(encoding="utf-8")) | changes
    (folder / f"{name}.yaml").write_text(
        yaml.safe_dump({key: value for key, value in content.items() if key not in drop}), encoding="utf-8"
    )
    return folder
