"""Every committed table whose runs are committed is, byte for byte, what its records give."""

import pytest

from benchmarks.tables.archive import archived_tables
from benchmarks.tables.committed import verify


@pytest.mark.parametrize("name", archived_tables())
def test_the_table_is_what_its_records_give(name: str) -> None:
    found = verify(name)
    assert not found.differing, str(found)
