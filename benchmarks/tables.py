"""Tables from records: `summarise` the runs, describe them, write Markdown, CSV and LaTeX side by side."""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.files import write_result
from benchmarks.footers import describe_gaps, describe_runs
from benchmarks.rendering import CSV_COLUMNS, to_csv, to_latex, to_markdown
from benchmarks.summaries import CellOutcome, Entry, summarise
from benchmarks.tablespec import TableSpec

__all__ = [
    "CSV_COLUMNS",
    "CellOutcome",
    "Entry",
    "describe_gaps",
    "describe_runs",
    "summarise",
    "to_csv",
    "to_latex",
    "to_markdown",
    "write_tables",
]


def write_tables(spec: TableSpec, rows: Sequence[Entry], footer: Sequence[str], folder: Path) -> list[Path]:
    """Write `<name>.md`, `<name>.csv` and `<name>.tex` to a folder; each replaces its predecessor in one step.

    Raises:
        ResultsError: the folder cannot be written to.
    """
    # Everything is rendered before anything is written, so that an error leaves the old files in step.
    texts = {
        "md": to_markdown(spec, rows, footer),
        "csv": to_csv(spec, rows),
        "tex": to_latex(spec, rows, footer),
    }
    return [write_result(folder / f"{spec.name}.{suffix}", text) for suffix, text in texts.items()]
