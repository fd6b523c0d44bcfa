"""Every rule on every model of the zoo that is installed: right or refused, as docs/compatibility.md says."""

import pytest
import torch

from tests.zoo.entries import ENTRIES, Entry
from tests.zoo.examine import COLUMNS, DEFECT, EXACT, REFUSED, Column
from tests.zoo.matrix import PAGE, TORCH, find, read, render

KNOWN = read(PAGE.read_text("utf-8"))


@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: column.name)
@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_right_or_refused(entry: Entry, column: Column) -> None:
    if not entry.installed:
        pytest.skip(f"{entry.library} is not installed")
    known, found = KNOWN[entry.name, column.name], find(entry, column)
    if known.kind == DEFECT and found.kind == DEFECT:
        pytest.xfail(known.note)
    if found.kind == REFUSED and known.kind == EXACT and not torch.__version__.startswith(TORCH):
        return
    assert found == known, "python -m tests.zoo.matrix writes what is found"


def test_page_is_what_the_script_writes() -> None:
    assert render(KNOWN) == PAGE.read_text("utf-8")


def test_page_has_every_cell() -> None:
    assert KNOWN.keys() == {(entry.name, column.name) for entry in ENTRIES for column in COLUMNS}
