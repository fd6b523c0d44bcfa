"""Fixtures for tests of view synthesis."""

from pathlib import Path

import pytest

from benchmarks.families.view_synthesis.stand_in import views as stand_in


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    stand_in.write_blender(folder / "lego", width=8, views=9)
    stand_in.write_llff(folder / "fern", width=32, views=9)
    return folder
