"""Files of a table: written together, and kept where they hold more results than those that would replace them."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from benchmarks.errors import ResultsError
from benchmarks.utils.files import read_regular, write_results


class RicherTable(ResultsError):
    """The table on disk has more results than the one that would replace it."""


def write_table(name: str, texts: Mapping[str, str], folder: Path, force: bool) -> list[Path]:
    """Write a table's files, `<name>.<suffix>` for each suffix and text.

    Args:
        name: of the table.
        texts: "csv" among them.
        folder: of tables.
        force: replace a table also by one with fewer results.

    Raises:
        RicherTable: the one in the folder has more results, and is kept.
        ResultsError: the folder cannot be written to.
    """
    found, before = count_results(texts["csv"]), _results_in_file(folder / f"{name}.csv")
    if found < before and not force:
        raise RicherTable(f"{found} results; the table in '{folder}' has {before} and is kept (see --force)")
    return write_texts(name, texts, folder)


def write_texts(name: str, texts: Mapping[str, str], folder: Path) -> list[Path]:
    """Write `<name>.<suffix>` for each suffix and text; if one cannot be written, none is replaced.

    Raises:
        ResultsError: the folder cannot be written to.
    """
    return write_results({folder / f"{name}.{suffix}": text for suffix, text in texts.items()})


def count_results(text: str) -> int:
    """Count the means in a table's CSV text."""
    return sum(bool(row.get("mean")) for row in csv.DictReader(io.StringIO(text)))


def _results_in_file(path: Path) -> int:
    """Count the means in a table's CSV file; 0 where there is none that can be read."""
    try:
        return count_results(read_regular(path))
    except (OSError, ValueError, csv.Error):
        return 0
