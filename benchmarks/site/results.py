"""Results of committed tables, with the runs behind each of them."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.config import identity
from benchmarks.errors import ResultsError
from benchmarks.tables.archive import Archive, ArchivedRun
from benchmarks.tables.at_step import with_metrics_at_steps
from benchmarks.tables.cells import Cell
from benchmarks.tables.composed import composed_runs, on_every_source
from benchmarks.tables.render import CSV_COLUMNS
from benchmarks.tables.schema import known_tables
from benchmarks.tables.spec import TableSpec, load_spec
from benchmarks.tables.summary import ends_of, related, value_per_seed
from benchmarks.utils.paths import REPOSITORY

TABLES = REPOSITORY / "results" / "tables"


@dataclass(frozen=True)
class Result:
    """Number of a table: a line of its CSV file.

    Attributes:
        cell: its place, with what is run for it; None where the table's file has no such cell.
        paper: the published number that may stand beside it.
        mean, std: over `n` seeds, in the table's unit.
        within: whether the tolerance holds; None where none was laid down.
        data: "real", "stand-in", …, "" without runs.
        seeds: seed → value; empty where no records are kept.
    """

    row: str
    column: str
    metric: str
    cell: Cell | None
    paper: float | None
    mean: float | None
    std: float | None
    n: int
    within: bool | None
    scale: str
    data: str
    status: str
    seeds: Mapping[int, float]

    @property
    def name(self) -> str:
        """Name its cell by "row:column", or by its row alone."""
        return f"{self.row}:{self.column}" if self.column else self.row

    @property
    def anchor(self) -> str:
        """Name it within the table's page."""
        return anchor(self.row, self.column, self.metric)

    @property
    def difference(self) -> float | None:
        """Return the distance of the mean from the published number."""
        return None if self.mean is None or self.paper is None else self.mean - self.paper


@dataclass(frozen=True)
class TableResults:
    """Committed table.

    Attributes:
        spec: its file.
        results: its numbers, in the order of its CSV file.
        runs: name of a cell → its committed runs, by seed.
        archive: its committed records; empty where none are kept.
    """

    spec: TableSpec
    results: tuple[Result, ...]
    runs: Mapping[str, tuple[ArchivedRun, ...]]
    archive: Archive

    @property
    def scale(self) -> str:
        """Return the scale of its runs."""
        return next((result.scale for result in self.results if result.scale), "")

    @property
    def shown(self) -> tuple[Result, ...]:
        """Return the numbers that its page shows: all, or of a sparse table those of which something has run."""
        return tuple(result for result in self.results if result.mean is not None or not self.spec.file.sparse)

    def cells(self) -> Iterator[tuple[str, list[Result]]]:
        """Yield the name of each cell that is shown and its numbers, one per metric."""
        names = dict.fromkeys(result.name for result in self.shown)
        for name in names:
            yield name, [result for result in self.shown if result.name == name]

    def find(self, place: str) -> Result:
        """Return the number with an anchor.

        Raises:
            ResultsError: there is none.
        """
        for result in self.results:
            if result.anchor == place:
                return result
        raise ResultsError(f"{self.spec.name} has no number '{place}'")


def anchor(row: str, column: str, metric: str) -> str:
    """Name a number within its table's page, e.g. "gcn-dfa-cora-accuracy_percent"."""
    return "-".join(part.replace("/", "-") for part in (row, column, metric) if part)


def committed_tables(folder: Path = TABLES) -> list[str]:
    """List the tables in a folder that have a file in `configs/table`, in the order of their numbers."""
    return [name for name in known_tables() if (folder / f"{name}.csv").exists()]


def read_table(name: str, folder: Path = TABLES, records: Path | None = None) -> TableResults:
    """Read a committed table and the runs behind it.

    Args:
        name: of the table.
        folder: with the CSV files of tables.
        records: folder with committed records; None: the repository's.

    Raises:
        ConfigError: there is no such table in `configs/table`.
        ResultsError: a file that cannot be read, or records that were altered.
    """
    archive = Archive.of(name, records)
    spec = load_spec(name, extra_rules=archive.how.get("rules", ()))
    runs = _runs_of_cells(spec, archive)
    cells = {(cell.row, cell.column): cell for cell in (*spec.cells, *spec.quoted)}
    results = tuple(_result(spec, cells, runs, line) for line in _lines(folder / f"{name}.csv"))
    return TableResults(spec, results, runs, archive)


def _lines(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            reader = csv.DictReader(stream)
            lines = list(reader)
    except (OSError, ValueError, csv.Error) as error:
        raise ResultsError(f"the table '{path}' cannot be read: {error}") from None
    if missing := set(CSV_COLUMNS) - set(reader.fieldnames or ()):
        raise ResultsError(f"the table '{path}' has no column {', '.join(sorted(missing))}")
    return lines


def _result(
    spec: TableSpec,
    cells: Mapping[tuple[str, str], Cell],
    runs: Mapping[str, Sequence[ArchivedRun]],
    line: Mapping[str, str],
) -> Result:
    cell = cells.get((line["row"], line["column"]))
    real = line["data"] == "real" or line["status"] == "quoted"
    return Result(
        row=line["row"],
        column=line["column"],
        metric=line["metric"],
        cell=cell,
        paper=spec.published(cell, line["metric"]) if cell is not None and real else None,
        mean=_number(line["mean"]),
        std=_number(line["std"]),
        n=int(line["n"]),
        within={"True": True, "False": False}.get(line["within_tolerance"]),
        scale=line["scale"],
        data=line["data"],
        status=line["status"],
        seeds={} if cell is None or not line["mean"] else _seeds(spec, cell, line["metric"], runs, line["scale"]),
    )


def _number(text: str) -> float | None:
    return float(text) if text else None


def _seeds(
    spec: TableSpec, cell: Cell, metric: str, runs: Mapping[str, Sequence[ArchivedRun]], scale: str
) -> dict[int, float]:
    """Return a cell's values by seed, related to other rows where the metric asks for that."""

    def values(row: str) -> dict[int, float]:
        beside = next((other for other in spec.cells if (other.row, other.column) == (row, cell.column)), None)
        if beside is None:
            return {}
        done = [run for run in runs.get(beside.name, ()) if run.record["status"] == "done"]
        keys = spec.metrics[metric].all_keys()
        records = [with_metrics_at_steps(run.record, run.history, keys) for run in done]
        return value_per_seed(spec, beside, metric, records, len(beside.runs_at(scale)))

    def mean(row: str) -> float | None:
        found = values(row)
        return sum(found.values()) / len(found) if found else None

    found, rows = values(cell.row), spec.metrics[metric].relative_to
    if not rows:
        return found
    ends = ends_of(rows, mean)
    return {} if ends is None else {seed: related(value, *ends) for seed, value in found.items()}


def _runs_of_cells(spec: TableSpec, archive: Archive) -> dict[str, tuple[ArchivedRun, ...]]:
    """Find the committed runs of each cell, by their identity."""
    if not archive.runs:
        return {}
    scale, seeds = str(archive.how["scale"]), max(int(run.record["seed"]) for run in archive.runs.values()) + 1
    asked = [(cell, (*overrides, f"scale={scale}")) for cell in spec.cells for overrides in cell.runs_at(scale)]
    composed = composed_runs([(overrides, seeds) for _, overrides in asked], spec.heading)
    runs: dict[str, tuple[ArchivedRun, ...]] = {}
    for (cell, _), configs in zip(asked, composed, strict=True):
        found = (archive.runs.get(identity(config)) for config in on_every_source(configs))
        runs[cell.name] = (*runs.get(cell.name, ()), *(run for run in found if run is not None))
    return runs
