"""Every committed table whose runs are committed is, byte for byte, what its records give."""

import pytest

from benchmarks.tables.archive import archived_tables
from benchmarks.tables.committed import verify


@pytest.mark.parametrize("name", archived_tables())
def test_the_table_is_what_its_records_give(name: str) -> None:
    found = verify(name)
    assert not found.differing, str(found)


def test_a_table_is_made_again_in_memory_whatever_data_are_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.run.inputs.Inputs.differs_from", lambda inputs, record: "other data")
    monkeypatch.setattr("benchmarks.run.records.RunFolder.put_back", lambda *parts: pytest.fail("a run was written"))
    assert not verify("table_a1").differing
