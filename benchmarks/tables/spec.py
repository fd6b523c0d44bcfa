"""Tables: their cells, what has to be run for them, and what they are compared with."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.config import SCALES
from benchmarks.errors import ConfigError
from benchmarks.tables.cells import Cell, as_pairs, cell_names, cells_of_rule, make_cell, marked_controls
from benchmarks.tables.chosen import chosen_name, read_chosen
from benchmarks.tables.published import ReferenceTable, known_references, load_reference
from benchmarks.tables.schema import Metric, TableFile, Tolerance, known_tables, matches, read_table_file
from benchmarks.tables.table_checks import check_table
from benchmarks.utils.paths import config_files
from benchmarks.utils.values import check_known


@dataclass(frozen=True)
class TableSpec:
    """Table, ready to be planned, run and filled.

    Attributes:
        name: "table_3".
        file: what `configs/table/<name>.yaml` says.
        metrics: metric → how it is found and shown, in the reference's order, then those it does not have.
        cells: what can be run; the frozen control comes last.
        quoted: what is shown beside it without being run.
        rows, columns: names in the order in which they are shown.
    """

    name: str
    file: TableFile
    metrics: Mapping[str, Metric]
    cells: tuple[Cell, ...]
    quoted: tuple[Cell, ...]
    rows: tuple[str, ...]
    columns: tuple[str, ...]

    @property
    def title(self) -> str:
        """Return what the table reports."""
        return self.file.title

    @property
    def heading(self) -> str:
        """Return the name as printed: "Table 3", "Table A2", "Table A5 reduced"."""
        return self.file.heading or heading("Table", self.name)

    @property
    def published_table(self) -> bool:
        """Return whether the paper has such a table, so that there are numbers to compare with."""
        return bool(self.file.reference) and self.file.compared

    @property
    def stand_in(self) -> bool:
        """Return whether stand-in data may replace data that are not available."""
        return self.file.stand_in

    @property
    def weights(self) -> bool:
        """Return whether it needs more of its runs than their records."""
        return False

    @property
    def added_metrics(self) -> tuple[str, ...]:
        """Return the metrics shown in blocks of their own: those that the paper does not report or that relate rows."""
        reported = load_reference(self.file.reference).metrics if self.file.reference else tuple(self.metrics)
        related = [metric for metric, settings in self.metrics.items() if settings.relative_to]
        return tuple(metric for metric in self.metrics if metric not in reported or metric in related)

    def seeds(self, cell: Cell, scale: str) -> int:
        """Return the number of seeds of a cell."""
        counts = self.file.seeds_for.get(scale, {})
        found = (seeds for pattern, seeds in counts.items() if matches(pattern, cell.row, cell.name))
        return next(found, self.file.seeds[scale])

    def cost(self, cell: Cell, scale: str, stand_in: bool = False, device: str = "cpu") -> float:
        """Return the rough seconds of one run of the cell, on stand-in data or a GPU if the file tells them apart.

        Raises:
            ConfigError: unknown scale.
        """
        check_known("scale", scale, SCALES)
        costs = self.file.cost_seconds
        special = "stand_in" if stand_in and scale == "mini" else f"{scale}_{device.split(':')[0]}"
        hints = costs.get(special, costs[scale])
        found = (seconds for pattern, seconds in hints.items() if matches(pattern, cell.row, cell.name))
        return next(found, hints["default"])

    def tolerance(self, cell: Cell, metric: str) -> Tolerance | None:
        """Return how far the cell may lie from the published number; None where nothing was laid down."""
        found = (
            tolerance
            for pattern, tolerance in self.file.tolerance.items()
            if matches(pattern, cell.rule, f"{cell.rule}:{metric}")
        )
        return next(found, None)

    def published(self, cell: Cell, metric: str) -> float | None:
        """Return the published number of a cell, or None. Whether it may be *shown* depends on the runs."""
        if not cell.reference:
            return None
        return load_reference(cell.reference).value(cell.row, cell.column, metric)


def load_spec(name: str, extra_rules: Sequence[str] = (), folder: Path | None = None) -> TableSpec:
    """Load the table called `name`, with rows (or columns) added for each rule of `extra_rules`.

    Raises:
        ConfigError: unknown table, or a file whose parts do not fit together.
    """
    file = read_table_file(name, folder)
    reference = _reference(name, file)
    metrics = _ordered_metrics(name, file, reference)
    own = _reference_cells(name, file, reference)
    own += _added_cells(name, file, own)
    runnable = [cell for cell in own if not cell.quoted]
    if not runnable:
        raise ConfigError(f"table file {name}.yaml: every cell is quoted, nothing can be run")
    if file.controls in known_tables(folder):
        controls = load_spec(file.controls, folder=folder).cells
        runnable += [replace(cell, control=True) for cell in controls if cell.name not in cell_names(runnable)]
    elif file.controls:
        runnable += cells_of_rule(name, file, runnable, file.controls, control=True)
    # After the control, so that asking for the control's rule as an extra one adds nothing.
    for rule in extra_rules:
        added = cells_of_rule(name, file, runnable, rule, control=False)
        runnable += [replace(cell, extra_rule=rule) for cell in added]
    runnable = _with_chosen(name, file, runnable, config_files("table", folder)[name].parent)
    runnable.sort(key=lambda cell: cell.control)
    quoted = [cell for cell in own if cell.quoted]
    check_table(name, file, [*runnable, *quoted], folder)
    return TableSpec(
        name=name,
        file=file,
        metrics=metrics,
        cells=tuple(runnable),
        quoted=tuple(quoted),
        rows=_in_order(reference.rows, [cell.row for cell in (*runnable, *quoted)]),
        columns=_in_order(reference.columns, [cell.column for cell in (*runnable, *quoted)]),
    )


def _with_chosen(name: str, file: TableFile, cells: Sequence[Cell], folder: Path) -> list[Cell]:
    """Add to the cells what was found best for them; for those of a further rule that is in a file of its own."""
    if file.rates is None:
        return list(cells)
    known = [*cell_names(cells), *(cell.row for cell in cells)]
    rules = dict.fromkeys(["", *(cell.extra_rule for cell in cells)])
    chosen = {rule: read_chosen(chosen_name(name, rule), folder, known) for rule in rules}

    def found(cell: Cell, scale: str) -> Sequence[str]:
        of = {**chosen[""].get(scale, {}), **chosen[cell.extra_rule].get(scale, {})}
        return of.get(cell.name, of.get(cell.row, ()))

    scales = dict.fromkeys(scale for of_rule in chosen.values() for scale in of_rule)
    return [replace(cell, chosen=as_pairs({scale: found(cell, scale) for scale in scales})) for cell in cells]


def _reference(name: str, file: TableFile) -> ReferenceTable:
    """Return the published table, or one without numbers that holds the file's own rows and columns."""
    if bool(file.reference) == bool(file.rows):
        raise ConfigError(f"table file {name}.yaml: needs either a reference or rows of its own")
    if file.rows:
        return ReferenceTable(name, tuple(file.metrics), tuple(file.rows), tuple(file.columns) or ("",), (), {})
    check_known("reference", file.reference, known_references(), f"table file {name}.yaml: ")
    return load_reference(file.reference)


def _ordered_metrics(name: str, file: TableFile, reference: ReferenceTable) -> dict[str, Metric]:
    if not set(file.metrics) >= set(reference.metrics):
        raise ConfigError(
            f"table file {name}.yaml: metrics are {', '.join(file.metrics)} "
            f"but {reference.name} reports {', '.join(reference.metrics)}"
        )
    for metric, settings in file.metrics.items():
        strangers = [row for row in settings.relative_to if file.rows and row not in file.rows]
        if strangers or len(settings.relative_to) > 2:
            wrong = f"unknown rows {', '.join(strangers)}" if strangers else "more than two rows"
            raise ConfigError(f"table file {name}.yaml: metric {metric} is relative to {wrong}")
    return {metric: file.metrics[metric] for metric in dict.fromkeys((*reference.metrics, *file.metrics))}


def _reference_cells(name: str, file: TableFile, reference: ReferenceTable) -> list[Cell]:
    """Build the cells that the paper reports, in its order; all places of a table that is not the paper's."""
    places = [(row, column) for row in reference.rows for column in reference.columns]
    wanted = [place for place in places if not file.reference or reference.reports(*place)]
    printed = [make_cell(name, file, row, column) for row, column in wanted]
    added = [(row, column) for row in reference.rows for column in file.added_columns]
    printed += [replace(make_cell(name, file, row, column), reference="") for row, column in added]
    if not file.extras:
        return printed
    extra = [make_cell(name, file, row, column) for row, column in reference.extra]
    return printed + marked_controls(extra, printed)


def _added_cells(name: str, file: TableFile, own: Sequence[Cell]) -> list[Cell]:
    """Build the cells that the paper does not have."""
    places = [(row, column) for row, columns in file.added.items() for column in columns]
    added = [replace(make_cell(name, file, row, column), reference="") for row, column in places]
    taken = [cell.name for cell in added if cell.name in cell_names(own)]
    if taken or len(set(places)) < len(places):
        raise ConfigError(f"table file {name}.yaml: {', '.join(taken) or 'a cell'} is added, but already there")
    return marked_controls(added, own)


def heading(kind: str, name: str) -> str:
    """Return the printed name of a table or figure: ("Table", "table_a5_reduced") → "Table A5 reduced".

    One of the user's own may have any name: ("Table", "my_scores") → "Table my scores".
    """
    parts = name.split("_")
    if parts[0] == kind.lower():
        del parts[0]
    return " ".join([kind, *(part.upper() if re.fullmatch(r"[a-z]\d+", part) else part for part in parts)])


def _in_order(first: Sequence[str], present: Sequence[str]) -> tuple[str, ...]:
    used = set(present)
    return tuple(dict.fromkeys([*(item for item in first if item in used), *present]))
