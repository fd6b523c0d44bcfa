"""Checks of a table's file: what it says has to count somewhere."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from benchmarks.errors import ConfigError
from benchmarks.tables.cells import Cell, cells_of_rule, fields_of
from benchmarks.tables.schema import TableFile, matches, read_table_file
from benchmarks.utils.overrides import key_of
from benchmarks.utils.paths import config_files
from benchmarks.utils.values import check_known

_PLANNED = ("seed", "scale", "run.wandb_group", "run.wandb_name")


def check_overrides(where: str, overrides: Iterable[str]) -> None:
    """Check that the overrides of a cell or panel leave alone what a plan sets in each of its runs.

    Args:
        where: beginning of the message.
        overrides: of one or more cells.

    Raises:
        ConfigError: one would be overwritten.
    """
    for item in overrides:
        if key_of(item) in _PLANNED:
            raise ConfigError(f"{where}'{item}' cannot count, since {key_of(item)} is set for every run")


def check_table(name: str, file: TableFile, cells: Sequence[Cell], folder: Path | None = None) -> None:
    """Check a table's file against the cells that it describes.

    What was taken over from the file that it starts from may be without effect, and so may tolerances, which are laid
    down for rules that can be added, and estimated times. Other patterns may be for such a rule, too.

    Args:
        name: of the table.
        file: its content.
        cells: all of its cells, quoted ones among them.
        folder: where tables are looked for; None: in the suite's folder and the user's own.

    Raises:
        ConfigError: a name twice, an unknown figure or field, a pattern that matches no cell, or an override that would
            be overwritten.
    """
    where = f"table file {name}.yaml: "
    for key in ("rows", "columns", "added_columns", "figures"):
        if twice := [word for word, count in Counter(getattr(file, key)).items() if count > 1]:
            raise ConfigError(f"{where}{key}: '{twice[0]}' is there twice")
    for figure in file.figures:
        check_known("figure", figure, config_files("figure"), f"{where}figures: ")
    for several in (file.overrides_for, file.members, *file.overrides_at.values()):
        check_overrides(where, (item for items in several.values() for item in items))
    check_overrides(where, file.overrides)
    base = read_table_file(file.base, folder) if file.base else None
    fields = ("row", "column", *fields_of(file.row), *fields_of(file.column))
    for field in file.names:
        if base is None or field not in base.names:
            check_known("field", field, fields, f"{where}names: ")
    _check_patterns(where, file, cells, set(_patterns(base)) if base is not None else set())


def _check_patterns(where: str, file: TableFile, cells: Sequence[Cell], inherited: set[tuple[str, str]]) -> None:
    unmatched = [entry for entry in _patterns(file) if entry not in inherited and not _match(entry, cells)]
    if not unmatched:
        return
    runnable, more = [cell for cell in cells if not cell.quoted], []
    for rule in (*config_files("rule"), *file.names.get("row", ()), *file.names.get("column", ())):
        with suppress(ConfigError):
            more += cells_of_rule("", file, runnable, rule, control=False)
    for key, pattern in unmatched:
        if not _match((key, pattern), more):
            raise ConfigError(f"{where}{key}: no cell matches '{pattern}'")


def _match(entry: tuple[str, str], cells: Iterable[Cell]) -> bool:
    key, pattern = entry
    columns = key == "quoted"
    return any(matches(pattern, cell.row, cell.name, *[cell.column] * columns) for cell in cells)


def _patterns(file: TableFile) -> Iterator[tuple[str, str]]:
    """Yield the patterns that change what a table shows, each with what it is for; those of estimated times do not."""
    entries = {
        "overrides_for": file.overrides_for,
        "members": file.members,
        "quoted": file.quoted,
        **{f"overrides_at of {scale}": several for scale, several in file.overrides_at.items()},
        **{f"seeds_for of {scale}": counts for scale, counts in file.seeds_for.items()},
        **{f"record_for of metric '{metric}'": of.record_for for metric, of in file.metrics.items()},
        **{f"profile '{label}'": [profile.cells] for label, profile in file.profiles.items()},
        "seeds of rates": file.rates.seeds if file.rates is not None else (),
    }
    for key, patterns in entries.items():
        yield from ((key, pattern) for pattern in patterns)
