"""Published numbers (`paper.yaml`), looked up cell by cell."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from benchmarks.errors import ConfigError
from benchmarks.utils.values import check_known

PAPER_FILE = Path(__file__).parent / "paper.yaml"

Key = tuple[str, str, str]


@dataclass(frozen=True)
class ReferenceTable:
    """Published table.

    Attributes:
        name: "table_3".
        metrics: what is reported, e.g. `("auc", "ap")`; an alignment table, which prints mean and standard
            deviation, has `("alignment_mean", "alignment_std")`.
        rows: row names in printed order, e.g. "gcn/dfa".
        columns: column names in printed order; `("",)` for a table whose only columns are its metrics.
        extra: the (row, column) pairs that are known from elsewhere than the printed table.
        values: (row, column, metric) → number; absent where nothing was reported.
    """

    name: str
    metrics: tuple[str, ...]
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    extra: tuple[tuple[str, str], ...]
    values: Mapping[Key, float]

    def value(self, row: str, column: str, metric: str) -> float | None:
        """Return the published number, or None where the paper reports none."""
        return self.values.get((row, column, metric))

    def reports(self, row: str, column: str) -> bool:
        """Return whether the paper reports any metric of that cell."""
        return any((row, column, metric) in self.values for metric in self.metrics)


def known_references() -> tuple[str, ...]:
    """List the names of the published tables, in the paper's order."""
    return tuple(name for name in _document() if name.startswith("table_"))


@cache
def load_reference(name: str) -> ReferenceTable:
    """Return the published table called `name`.

    Raises:
        ConfigError: there is no such table (the message lists those there are), or its entry is malformed.
    """
    check_known("reference table", name, known_references())
    return parse_reference(name, _document()[name])


def parse_reference(name: str, entry: dict[str, Any]) -> ReferenceTable:
    """Read one entry of the reference file.

    A row lists one number per column; without columns one per metric; without columns and with a single
    metric a mean and a standard deviation. An extra may also be one number under the key "row/column".

    Raises:
        ConfigError: a row has too many or too few numbers, or an extra names an unknown column.
    """
    columns = tuple(entry.get("columns", ("",)))
    named = entry["metric"]
    metrics = tuple(named) if isinstance(named, list) else (named,)
    if "columns" not in entry and len(metrics) == 1:
        metrics = (f"{named}_mean", f"{named}_std")
    values: dict[Key, float] = {}
    for row, numbers in entry["rows"].items():
        values.update(_row_values(name, row, numbers, columns, metrics))
    extra: dict[tuple[str, str], None] = {}
    for key, numbers in entry.get("extra", {}).items():
        found = (
            _row_values(name, key, numbers, columns, metrics)
            if isinstance(numbers, list)
            else _single_value(name, key, numbers, columns, metrics)
        )
        values.update(found)
        extra.update({(row, column): None for row, column, _ in found})
    return ReferenceTable(name, metrics, tuple(entry["rows"]), columns, tuple(extra), MappingProxyType(values))


def _row_values(
    name: str, row: str, numbers: list[float | None], columns: tuple[str, ...], metrics: tuple[str, ...]
) -> dict[Key, float]:
    places = [(row, column, metric) for column in columns for metric in metrics]
    if len(numbers) != len(places):
        raise ConfigError(f"reference {name}, row '{row}': {len(numbers)} numbers for {len(places)} places")
    return {place: float(number) for place, number in zip(places, numbers, strict=True) if number is not None}


def _single_value(
    name: str, key: str, number: float, columns: tuple[str, ...], metrics: tuple[str, ...]
) -> dict[Key, float]:
    row, _, column = key.rpartition("/")
    if column not in columns or len(metrics) != 1:
        raise ConfigError(f"reference {name}, extra '{key}': no column '{column}'; known: {', '.join(columns)}")
    return {(row, column, metrics[0]): float(number)}


@cache
def _document() -> dict[str, Any]:
    with PAPER_FILE.open(encoding="utf-8") as stream:
        document: dict[str, Any] = yaml.safe_load(stream)
    return document
