"""A table of toys with a place for its records."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.tables import archive, targets
from tests.commands.test_reproduce import toy_table


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Results of a table of toys, and a place for its archive."""
    folder = tmp_path / "committed" / "records"
    folder.mkdir(parents=True)
    monkeypatch.setattr(archive, "RECORDS", folder)
    genuine = targets.load_spec
    monkeypatch.setattr(
        targets, "load_spec", lambda name, **options: toy_table() if name == "table_3" else genuine(name, **options)
    )
    yield folder
