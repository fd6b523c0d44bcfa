"""Summary of the records of a table's runs: its numbers, and how they compare."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from benchmarks.errors import ResultsError
from benchmarks.tables.cells import Cell
from benchmarks.tables.schema import matches
from benchmarks.tables.spec import TableSpec

STATUSES = ("done", "partial", "missing", "failed", "diverged")
INCOMPARABLE = "incomparable"
"""Status of an entry that would set runs on other data in relation to one another."""
STAND_IN, MIXED = "stand-in", "mixed"
PAPER_SCALE = "paper"
# Means carry rounding errors: a distance of exactly the tolerance must not depend on their last bit.
ROUNDING = 1e-9

Record = Mapping[str, Any]


@dataclass(frozen=True)
class CellOutcome:
    """Outcome of a cell's runs.

    Attributes:
        records: results of the runs that finished (`status` "done"), in any order.
        expected: number of runs the cell takes at this scale (seeds × runs per seed).
        status: "done", "partial", "missing", "failed" or "diverged".
        reason: why it is not done, in a few words.
    """

    records: Sequence[Record] = field(default_factory=tuple)
    expected: int = 0
    status: str = "missing"
    reason: str = ""

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"unknown cell status '{self.status}'; known: {', '.join(STATUSES)}")
        if any(record["status"] != "done" for record in self.records):
            raise ValueError("a cell's records must be of finished runs; report the others by its status")


@dataclass(frozen=True)
class Entry:
    """Metric of a cell: a line of the CSV.

    Attributes:
        paper: the published number, where the runs are of the paper's own data set at the paper's scale.
        published: the same, also where the runs are reduced; for readers who are told the scale.
        mean, std: over seeds, in the table's unit; std is the sample one, None for a single seed.
        n: seeds behind the mean.
        expected: seeds asked for.
        difference: mean - paper.
        within: whether the tolerance holds; None where there is no paper number or no tolerance.
        data: "real", "stand-in", "mixed", "real (NAME)" for another data set than the paper's, "" without runs.
        status: the outcome's, "quoted", or `INCOMPARABLE`.
        without: seeds that are done, but whose records lack the metric.
    """

    cell: Cell
    metric: str
    paper: float | None
    published: float | None
    mean: float | None
    std: float | None
    n: int
    expected: int
    difference: float | None
    within: bool | None
    scale: str
    data: str
    status: str
    reason: str
    without: int = 0


def summarise(spec: TableSpec, outcomes: Mapping[Cell, CellOutcome], scale: str = "") -> list[Entry]:
    """Summarise every cell of the table, metric by metric, whether it ran or not.

    Args:
        spec: the table.
        outcomes: per cell; a cell that is absent counts as missing.
        scale: of the runs; may be left out when there are records to read it from.

    Raises:
        ResultsError: records of several scales, several records of one seed, or an outcome without a cell.
    """
    strangers = [cell.name for cell in outcomes if cell not in spec.cells]
    if strangers:
        raise ResultsError(f"{spec.name} has no cell {', '.join(strangers)}")
    scale = _the_scale(spec, outcomes, scale)
    entries: list[Entry] = []
    cells = [cell for cell in spec.cells if cell.runs_at(scale)]
    for cell in cells:
        outcome = outcomes.get(cell, CellOutcome(reason="not run"))
        entries += [
            _entry(spec, cell, metric, outcome, scale) for metric in spec.metrics if _applies(spec, metric, cell, cells)
        ]
    entries = [_related(spec, entry, entries) for entry in entries]
    for cell in spec.quoted:
        if all(beside.row != cell.row for beside in cells):
            continue
        entries += [_quoted_entry(spec, cell, metric, entries, scale) for metric in spec.metrics]
    return entries


def data_kind(cell: Cell, records: Sequence[Record]) -> str:
    """Return what a cell's runs were trained on, see `Entry.data`."""
    kinds = {str(record["data"]["kind"]) for record in records}
    if len(kinds) > 1:
        return MIXED
    others = {record["data"]["name"] for record in records if not matches(cell.data, record["data"]["name"])}
    if kinds == {"real"} and others:
        return f"real ({', '.join(sorted(others))})"
    return next(iter(kinds), "")


def within_tolerance(spec: TableSpec, cell: Cell, metric: str, mean: float, paper: float) -> bool | None:
    """Return whether a mean reproduces the published number; None where no tolerance is laid down."""
    tolerance, points = spec.tolerance(cell, metric), _reach(spec, cell, metric)
    if tolerance is None or points is None:
        return None
    difference = mean - paper
    better = difference >= 0 if spec.metrics[metric].higher_is_better else difference <= 0
    return (tolerance.or_better and better) or abs(difference) <= points + ROUNDING


def only_better(spec: TableSpec, entry: Entry) -> bool:
    """Return whether the tolerance of an entry holds only because it accepts any distance in the better direction."""
    points = _reach(spec, entry.cell, entry.metric) if entry.within and entry.difference is not None else None
    return points is not None and abs(entry.difference or 0.0) > points + ROUNDING


def _reach(spec: TableSpec, cell: Cell, metric: str) -> float | None:
    """Return the largest accepted distance; None where no tolerance is laid down, or not for what multiplies it."""
    tolerance = spec.tolerance(cell, metric)
    if tolerance is None or not tolerance.times:
        return None if tolerance is None else tolerance.points
    factor = spec.published(cell, tolerance.times)
    return None if factor is None else tolerance.points * factor


def _entry(spec: TableSpec, cell: Cell, metric: str, outcome: CellOutcome, scale: str) -> Entry:
    runs = len(cell.runs_at(scale))
    values = list(value_per_seed(spec, cell, metric, outcome.records, runs).values())
    expected = max(outcome.expected // runs, len(values))
    records_of = Counter(record["seed"] for record in outcome.records)
    without = sum(records == runs for records in records_of.values()) - len(values)
    lacking = f"{without} without '{spec.metrics[metric].key(cell.row, cell.name)}'" if without else ""
    status, reason = _honest_status(outcome, len(values), expected, lacking)
    mean = float(np.mean(values)) if values else None
    data = data_kind(cell, outcome.records)
    published = spec.published(cell, metric) if data == "real" and mean is not None else None
    paper = published if scale == PAPER_SCALE else None
    within = None
    if mean is not None and paper is not None:
        if status == "diverged":
            # The seeds that survived say nothing about those that did not: a rule that diverges does not pass.
            within = None if spec.tolerance(cell, metric) is None else False
        elif status in ("done", "partial"):
            within = within_tolerance(spec, cell, metric, mean, paper)
    return Entry(
        cell=cell,
        metric=metric,
        paper=paper,
        published=published,
        mean=mean,
        std=float(np.std(values, ddof=1)) if len(values) > 1 else None,
        n=len(values),
        expected=expected,
        difference=None if mean is None or paper is None else mean - paper,
        within=within,
        scale=scale,
        data=data,
        status=status,
        reason=reason,
        without=without,
    )


def _applies(spec: TableSpec, metric: str, cell: Cell, cells: Sequence[Cell]) -> bool:
    """Return whether the column has the rows that the metric relates a value to."""
    rows_beside = {other.row for other in cells if other.column == cell.column}
    return rows_beside.issuperset(spec.metrics[metric].relative_to)


def _related(spec: TableSpec, entry: Entry, entries: Sequence[Entry]) -> Entry:
    """Relate the entry to those of other rows, where its metric asks for that; no number if they have none.

    Nor is there one where the data differ: a rule's row that was added may have run on generated data, beside committed
    records of real data.
    """
    rows = spec.metrics[entry.metric].relative_to
    if not rows or entry.mean is None:
        return entry
    place = entry.metric, entry.cell.column
    beside = {other.cell.row: other for other in entries if (other.metric, other.cell.column) == place}
    ends = ends_of(rows, lambda row: beside[row].mean if row in beside else None)
    if ends is None:
        return replace(entry, mean=None, std=None, status="missing", reason=f"no {' and '.join(rows)} to relate it to")
    kinds = {entry.data, *(beside[row].data for row in rows)}
    if len(kinds) > 1 or kinds == {MIXED}:
        reason = f"not on the same data as {' and '.join(rows)}"
        return replace(entry, mean=None, std=None, status=INCOMPARABLE, reason=reason)
    std = None if entry.std is None else entry.std / abs(ends[1] - ends[0])
    return replace(entry, mean=related(entry.mean, *ends), std=std)


def ends_of(rows: Sequence[str], mean: Callable[[str], float | None]) -> tuple[float, float] | None:
    """Return what a metric counts from and to, given the rows it relates a value to; None where one has no mean.

    Args:
        rows: the one that counts as 1, or those that count as 0 and as 1.
        mean: that of a row.
    """
    start, end = (0.0, mean(rows[0])) if len(rows) == 1 else (mean(rows[0]), mean(rows[1]))
    return None if start is None or end is None or start == end else (start, end)


def related(value: float, start: float, end: float) -> float:
    """Return the share of the way from `start` to `end` that a value has come."""
    return (value - start) / (end - start)


def _quoted_entry(spec: TableSpec, cell: Cell, metric: str, entries: Iterable[Entry], scale: str) -> Entry:
    """Build the entry of a number that the paper took from others; shown only beside a run on the same data."""
    beside = [entry for entry in entries if entry.cell.row == cell.row and entry.cell.rule]
    number = spec.published(cell, metric)
    blank = Entry(cell, metric, None, None, None, None, 0, 0, None, None, scale, data="", status="quoted", reason="")
    return replace(
        blank,
        paper=number if any(entry.paper is not None for entry in beside) else None,
        published=number if any(entry.published is not None for entry in beside) else None,
    )


def value_per_seed(spec: TableSpec, cell: Cell, metric: str, records: Sequence[Record], runs: int) -> dict[int, float]:
    """Return one value per seed; the mean over its runs where a seed takes several, once all have one.

    Args:
        spec: the table.
        cell: one of its cells.
        metric: one of its metrics; the value of one that relates rows is that before it is related.
        records: of the cell's finished runs.
        runs: how many a seed takes.

    Raises:
        ResultsError: more records of a seed than it takes.
    """
    by_seed: dict[int, list[Record]] = {}
    for record in records:
        by_seed.setdefault(int(record["seed"]), []).append(record)
    wanted = spec.metrics[metric]
    key = wanted.key(cell.row, cell.name)
    values: dict[int, float] = {}
    for seed, group in sorted(by_seed.items()):
        if len(group) > runs:
            raise ResultsError(f"{spec.name}, {cell.name}: {len(group)} records of seed {seed}")
        numbers = [number_of(record, key) for record in group]
        found = [number for number in numbers if number is not None]
        if len(found) == runs:
            values[seed] = float(np.mean(found)) * wanted.factor
    return values


def number_of(record: Record, key: str) -> float | None:
    """Return the number that a record has under the key of a metric; None where it has none."""
    value = record["metrics"].get(key, record.get(key))
    return float(value) if isinstance(value, (int, float)) else None


def _honest_status(outcome: CellOutcome, found: int, expected: int, lacking: str) -> tuple[str, str]:
    """Return status and reason of an entry, which is done only when every seed has a value of its metric."""
    reason = "; ".join(part for part in (" ".join(outcome.reason.split()), lacking) if part)
    if outcome.status not in ("done", "partial") or (outcome.status == "done" and found == expected > 0):
        return outcome.status, reason
    return ("partial" if found else "missing"), reason


def _the_scale(spec: TableSpec, outcomes: Mapping[Cell, CellOutcome], scale: str) -> str:
    scales = {str(record["scale"]) for outcome in outcomes.values() for record in outcome.records}
    scales |= {scale} - {""}
    if len(scales) > 1:
        raise ResultsError(f"{spec.name}: results of several scales ({', '.join(sorted(scales))}) in one table")
    return next(iter(scales), "")
