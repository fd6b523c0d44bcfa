"""Cells, the entries of a table, built from its file."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from benchmarks.errors import ConfigError
from benchmarks.tables.schema import TableFile, matches
from benchmarks.utils.overrides import key_of, value_of, with_value


@dataclass(frozen=True)
class Cell:
    """Entry of a table.

    Attributes:
        row, column: names as in the reference file; column is "" in a table without columns.
        overrides: configuration shared by the cell's runs, e.g. `("task=cora", "model=gcn", "rule=dfa")`.
        control: whether it is the frozen control rather than a row of the table proper.
        members: overrides that differ between the runs the cell averages over; empty for an ordinary cell.
        only: scale → overrides, of which a run must have one to take place at that scale; as pairs.
        at: scale → overrides that count there alone; as pairs.
        chosen: scale → overrides that were found best on validation there; as pairs.
        data: pattern of the names that the paper's own data set has in records.
        reference: published table that holds the cell's number; "" where none does.
        quoted: taken over by the paper from others; never run.
        extra_rule: the rule that was asked for beside those of the table, and added the cell; "" for the table's own.
    """

    row: str
    column: str
    overrides: tuple[str, ...]
    control: bool = False
    members: tuple[str, ...] = ()
    only: tuple[tuple[str, tuple[str, ...]], ...] = ()
    at: tuple[tuple[str, tuple[str, ...]], ...] = ()
    chosen: tuple[tuple[str, tuple[str, ...]], ...] = ()
    data: str = "*"
    reference: str = ""
    quoted: bool = False
    extra_rule: str = ""

    @property
    def name(self) -> str:
        """Name the cell by "row:column", or by its row alone."""
        return f"{self.row}:{self.column}" if self.column else self.row

    @property
    def runs(self) -> tuple[tuple[str, ...], ...]:
        """Return the overrides of each run that one seed of the cell takes: one for an ordinary cell."""
        return self._runs(())

    def runs_at(self, scale: str) -> tuple[tuple[str, ...], ...]:
        """Return the runs that take place at a scale; a table at a scale where none do leaves the cell out."""
        further = (*dict(self.at).get(scale, ()), *dict(self.chosen).get(scale, ()))
        runs, wanted = self._runs(further), dict(self.only).get(scale)
        return runs if wanted is None else tuple(run for run in runs if any(item in run for item in wanted))

    def _runs(self, further: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
        if self.quoted:
            return ()
        shared = (*self.overrides, *further)
        return tuple((*shared, member) for member in self.members) or (shared,)

    @property
    def rule(self) -> str:
        """Return the training rule of the cell, from its overrides."""
        return value_of(self.overrides, "rule")


def make_cell(name: str, file: TableFile, row: str, column: str) -> Cell:
    """Build the cell at a place in the table `name`.

    Raises:
        ConfigError: names that do not have the file's form, or templates that cannot be filled in with them.
    """
    place = Cell(row, column, ())
    if any(matches(pattern, row, column, place.name) for pattern in file.quoted):
        return replace(place, reference=file.reference, quoted=True)
    words = _fields(name, file.row, row) | _fields(name, file.column, column)
    words |= {"row": row, "column": column}
    words = {key: file.names.get(key, {}).get(word, word) for key, word in words.items()}

    def filled(templates: Iterable[str]) -> tuple[str, ...]:
        return tuple(_fill(name, template, words) for template in templates)

    return replace(
        place,
        overrides=filled([*file.overrides, *_matching(file.overrides_for, place)]),
        members=filled(_matching(file.members, place)),
        at=as_pairs({scale: filled(_matching(entries, place)) for scale, entries in file.overrides_at.items()}),
        only=as_pairs(file.only),
        data=_fill(name, file.data, words),
        reference=file.reference if file.compared else "",
    )


def marked_controls(cells: Sequence[Cell], printed: Sequence[Cell]) -> list[Cell]:
    """Mark the cells of the frozen control, unless the paper prints the control as a row among others."""
    among_others = any(cell.rule == "shallow" and not cell.control for cell in printed)
    return [replace(cell, control=cell.rule == "shallow" and not among_others) for cell in cells]


def cells_of_rule(name: str, file: TableFile, cells: Sequence[Cell], rule: str, control: bool) -> list[Cell]:
    """Repeat the cells of the table `name` under another rule; one more row or column where these are rules.

    Only cells that the paper trains with a rule of its own are repeated: a model that it trains with
    backpropagation alone has nothing for a local rule to act on.

    Raises:
        ConfigError: another rule would be trained in one of them.
    """
    wanted = rule
    if "rule={row}" in file.overrides:
        columns = file.columns or dict.fromkeys(cell.column for cell in cells)
        made = [make_cell(name, file, rule, column) for column in columns]
        wanted = file.names.get("row", {}).get(rule, rule)
    elif "rule={column}" in file.overrides:
        rows = file.rows or dict.fromkeys(cell.row for cell in cells)
        made = [make_cell(name, file, row, rule) for row in rows]
        wanted = file.names.get("column", {}).get(rule, rule)
    else:
        own = [cell for cell in cells if cell.rule != "bp" and not cell.control and not cell.extra_rule]
        made = [_under_rule(file, cell, rule) for cell in own]
    taken = set(cell_names(cells))
    added: list[Cell] = []
    for cell in made:
        if cell.name not in taken and not cell.quoted:
            taken.add(cell.name)
            _check_rule(name, cell, wanted)
            added.append(replace(cell, control=control, reference=""))
    return added


def _under_rule(file: TableFile, cell: Cell, rule: str) -> Cell:
    row = _with_rule(file.row, cell.row, rule)
    column = _with_rule(file.column, cell.column, rule)
    if "{rule}" not in file.row + file.column:
        row = f"{cell.row}/{rule}"
    return replace(cell, row=row, column=column, overrides=with_value(cell.overrides, "rule", rule))


def _check_rule(name: str, cell: Cell, rule: str) -> None:
    """Check that every run of an added cell trains the rule: the last choice counts, and a name of its own more."""
    for run in cell.runs:
        choices = [item for key in ("rule", "rule.name") for item in run if key_of(item) == key]
        if choices[-1] != f"rule={rule}":
            raise ConfigError(f"table file {name}.yaml: '{choices[-1]}' keeps {cell.name} from training rule '{rule}'")


def _with_rule(pattern: str, text: str, rule: str) -> str:
    if "{rule}" not in pattern:
        return text
    return pattern.format(**(_fields("", pattern, text) | {"rule": rule}))


def fields_of(pattern: str) -> list[str]:
    """List the fields of a pattern: "{model}/{rule}" has model and rule."""
    return re.findall(r"\{(\w+)\}", pattern)


def _fields(name: str, pattern: str, text: str) -> dict[str, str]:
    """Split "gcn/dfa" by "{model}/{rule}"."""
    parts = re.split(r"\{(\w+)\}", pattern)
    expression = "".join(f"(?P<{part}>[^/]*)" if index % 2 else re.escape(part) for index, part in enumerate(parts))
    found = re.fullmatch(expression, text)
    if found is None:
        raise ConfigError(f"table file {name}.yaml: '{text}' does not have the form '{pattern}'")
    return found.groupdict()


def _fill(name: str, template: str, words: Mapping[str, str]) -> str:
    try:
        return template.format(**words)
    except (KeyError, IndexError, ValueError):
        known = ", ".join(f"{{{word}}}" for word in words)
        raise ConfigError(f"table file {name}.yaml: cannot fill in '{template}'; known: {known}") from None


def _matching(entries: Mapping[str, Sequence[str]], cell: Cell) -> list[str]:
    chosen = (items for pattern, items in entries.items() if matches(pattern, cell.row, cell.name))
    return [item for items in chosen for item in items]


def as_pairs(entries: Mapping[str, Sequence[str]]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Convert a mapping of lists to a form that can be hashed."""
    return tuple((key, tuple(items)) for key, items in entries.items())


def cell_names(cells: Iterable[Cell]) -> list[str]:
    """List the names of cells."""
    return [cell.name for cell in cells]
