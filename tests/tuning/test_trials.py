"""The trials of the tables whose learning rates are chosen by `tune`."""

import pytest

from benchmarks.tables.schema import known_tables, read_table_file
from benchmarks.tables.spec import load_spec
from benchmarks.tuning.trials import make_trials, rates_of

_TUNED = [name for name in known_tables() if read_table_file(name).rates is not None]


def test_the_tables_of_rules_beyond_the_paper_are_tuned() -> None:
    assert {"table_6", "table_6_wikitext2"} <= set(_TUNED)


@pytest.mark.parametrize("table", _TUNED)
def test_every_cell_that_is_tuned_has_a_trial_for_every_rate(table: str) -> None:
    spec = load_spec(table)
    trials = make_trials(spec, "smoke")
    cells = {trial.cell.name for trial in trials}
    assert cells and cells <= {cell.name for cell in spec.cells}
    assert len(trials) == len(cells) * len(rates_of(spec).factors)
