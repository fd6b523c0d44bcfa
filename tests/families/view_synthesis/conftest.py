"""Fixtures for tests of view synthesis."""

from pathlib import Path

import pytest

from tests.helpers.scenes import write_blender, write_llff


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    write_blender(folder / "lego", width=8, views=9)
    write_llff(folder / "fern", width=32, views=9)
    return folder
