"""Metrics of a table that are read at a step of training, such as `valid/perplexity@1000`."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.run.record_schema import Record

MARK = "@"


def with_metrics_at_steps(record: Record, history: Sequence[Mapping[str, Any]], keys: Iterable[str]) -> Record:
    """Add to a record the metrics that the history has at the steps that keys name; others stay as they are.

    A step at which the run was not evaluated gives no number.

    Args:
        record: of a run.
        history: its evaluations.
        keys: keys of metrics, "name" or "name@step".
    """
    at_step = {int(row["step"]): row for row in history}
    found = {}
    for key in keys:
        name, mark, step = key.rpartition(MARK)
        row = at_step.get(int(step), {}) if mark and step.isdigit() else {}
        if name in row:
            found[key] = float(row[name])
    return {**record, "metrics": {**record["metrics"], **found}} if found else record
