"""The history of a run: one line of metrics for each evaluation, `metrics.jsonl`."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.errors import ResultsError
from benchmarks.utils.files import read_regular
from benchmarks.utils.kinds import COUNT, METRICS

Row = dict[str, Any]


def to_text(rows: Iterable[Mapping[str, Any]]) -> str:
    """Format the rows of a history as lines."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def read_history(path: Path) -> list[Row]:
    """Read all rows of a history; none where there is no file.

    Raises:
        ResultsError: the file cannot be read, or a line is not that of an evaluation.
    """
    try:
        lines = read_regular(path).split("\n")
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, ValueError) as error:
        raise ResultsError(
            f"the history '{path}' cannot be read: {getattr(error, 'strerror', None) or error}"
        ) from None
    rows = [_parsed(line) for line in (lines if lines[-1] else lines[:-1])]
    if fault := fault_in_rows(rows):
        raise ResultsError(f"the history '{path}' {fault}")
    return rows


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def fault_in_rows(rows: object) -> str:
    """Say what is wrong with the rows of a history, "" if nothing is."""
    if not isinstance(rows, list):
        return "is damaged: it is no list of evaluations"
    strange = next((number for number, row in enumerate(rows, 1) if not is_row(row)), 0)
    return f"is damaged: line {strange} is not that of an evaluation" if strange else ""


def shortfall(rows: Sequence[Row], last_step: int) -> str:
    """Say how a history falls short of a run's last step, "" if it reaches it."""
    if not rows:
        return "is missing or empty"
    last = max(row["step"] for row in rows)
    return f"ends at step {last} of {last_step}" if last < last_step else ""


def is_row(row: object) -> bool:
    """Return whether it is what an evaluation leaves: the step, and numbers by name."""
    return METRICS.fits(row) and isinstance(row, dict) and COUNT.fits(row.get("step"))


def curve(path: Path, metric: str, last_step: int) -> dict[int, float]:
    """Return a metric by step.

    Args:
        path: of a history.
        metric: one of its names.
        last_step: of the run; the history must reach it, which a copy made while the run was under way does not.

    Raises:
        ResultsError: the history is missing, cannot be read, lacks the metric, or ends before the run did.
    """
    rows = read_history(path)
    if fault := shortfall(rows, last_step):
        raise ResultsError(f"the history {path} {fault}")
    try:
        return {row["step"]: float(row[metric]) for row in rows}
    except KeyError as error:
        raise ResultsError(f"cannot read '{metric}' of every line of {path}: {error!r}") from error
