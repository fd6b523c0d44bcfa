"""Durations and means formatted for people."""

from collections.abc import Iterable, Sequence

import numpy as np
from tabulate import tabulate


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[object]], align: Sequence[str] | None = None) -> str:
    """Lay out a Markdown table, values as they are written.

    Args:
        heads: of the columns.
        rows: one value for each column.
        align: "left" or "right" for each column; None: all left.
    """
    return tabulate(list(rows), heads, tablefmt="pipe", disable_numparse=True, colalign=align)


def duration(seconds: float) -> str:
    """Format a duration in seconds, e.g. as "42 s", "3 min 5 s" or "2 h 7 min"."""
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole % 3600 // 60, whole % 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def mean_and_spread(values: Sequence[float]) -> str:
    """Format the mean ± the sample standard deviation, e.g. "0.7982 ± 0.0190"; "–" if there are no values."""
    if not values:
        return "–"
    spread = f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
    return f"{np.mean(values):.4f}{spread}"
