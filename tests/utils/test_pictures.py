"""Pictures in a file: what is read is what was written."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.errors import ResultsError
from benchmarks.utils.pictures import Picture, read_pictures, write_pictures


def test_pictures_come_back_as_they_were(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    write_pictures([Picture("fern", "bp", "20.00 dB", pixels)], tmp_path / "one.json")
    (found,) = read_pictures(tmp_path / "one.json")
    assert (found["group"], found["label"], found["note"]) == ("fern", "bp", "20.00 dB")
    with Image.open(io.BytesIO(base64.b64decode(found["png"]))) as image:
        assert np.array_equal(np.asarray(image), pixels)


@pytest.mark.parametrize("content", ["", "3", "[{}]", '[{"group": "a"}]'])
def test_another_file_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "one.json").write_text(content)
    with pytest.raises(ResultsError, match=r"one.json' cannot be read"):
        read_pictures(tmp_path / "one.json")


def test_a_folder_in_the_way_is_told(tmp_path: Path) -> None:
    (tmp_path / "one.json").mkdir()
    with pytest.raises(ResultsError, match="cannot write"):
        write_pictures([], tmp_path / "one.json")
