"""The history of a run: one line of metrics for each evaluation, `metrics.jsonl`."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.errors import ResultsError
from benchmarks.utils.files import read_regular

Row = dict[str, Any]


def to_text(rows: Iterable[Row]) -> str:
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
    rows = []
    for number, line in enumerate(lines if lines[-1] else lines[:-1], 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not is_row(row):
            raise ResultsError(f"the history '{path}' is damaged: line {number} is not that of an evaluation")
        rows.append(row)
    return rows


def is_row(row: object) -> bool:
    """Return whether it is what an evaluation leaves: the step, and numbers by name."""
    return (
        isinstance(row, dict)
        and type(row.get("step")) is int
        and all(isinstance(name, str) and isinstance(value, (int, float)) for name, value in row.items())
    )


def curve(path: Path, metric: str, last_step: int) -> dict[int, float]:
    """Return a metric by step.

    Args:
        path: of a history.
        metric: one of its names.
        last_step: of the run; the history must reach it, which a copy made while the run was under way does not.

    Raises:
        ResultsError: the history is missing, cannot be read, lacks the metric, or ends before the run did.
    """
    try:
        values = {int(row["step"]): float(row[metric]) for row in read_history(path)}
    except (KeyError, OverflowError) as error:
        raise ResultsError(f"cannot read '{metric}' of every line of {path}: {error!r}") from error
    if not values:
        raise ResultsError(f"the history {path} is missing or empty")
    if max(values) < last_step:
        raise ResultsError(f"the history {path} ends at step {max(values)} of {last_step}")
    return values
