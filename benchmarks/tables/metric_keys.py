"""Check of the keys of a table's metrics against what its runs recorded."""

from collections.abc import Mapping, Sequence

from benchmarks.errors import ResultsError
from benchmarks.tables.at_step import MARK
from benchmarks.tables.cells import Cell
from benchmarks.tables.spec import TableSpec
from benchmarks.tables.summary import CellOutcome, Record, number_of, summarise
from benchmarks.utils.text import nearest_name
from benchmarks.utils.values import is_number


def check_keys(spec: TableSpec, outcomes: Mapping[Cell, CellOutcome], scale: str) -> None:
    """Check that each metric is found somewhere under each of its keys.

    Rows may lack a metric that others have, so that nothing is said of a key before all of its cells have a finished
    run. Nor is it of a step of training that the few steps of the smoke scale do not reach.

    Raises:
        ResultsError: no run of the cells that a key is for has it.
    """
    cells: dict[tuple[str, str], list[Cell]] = {}
    for entry in summarise(spec, outcomes, scale):
        if entry.cell in outcomes:
            key = spec.metrics[entry.metric].key(entry.cell.row, entry.cell.name)
            cells.setdefault((entry.metric, key), []).append(entry.cell)
    for (metric, key), of in cells.items():
        groups = [outcomes[cell].records for cell in of]
        records = [record for group in groups for record in group]
        if not all(groups) or any(number_of(record, key) is not None for record in records):
            continue
        name, mark, step = key.partition(MARK)
        known = _keys(records)
        if mark and name in known:
            if scale != "smoke":
                raise ResultsError(f"metric '{metric}': no run was evaluated at step {step}, as '{key}' asks")
            continue
        near = nearest_name(name, known)
        raise ResultsError(
            f"metric '{metric}': no run has '{key}'" + (f"; did you mean '{near}{mark}{step}'?" * bool(near))
        )


def _keys(records: Sequence[Record]) -> list[str]:
    """List what a metric of these records may be read from."""
    numbers = [[*record["metrics"], *(key for key in record if is_number(record[key]))] for record in records]
    return list(dict.fromkeys(key for keys in numbers for key in keys))
