"""Columns and windows against lists written out, texts on disk, and the fetching of WikiText."""

import os
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch

from benchmarks.errors import DataError
from benchmarks.families.language.data import Columns, sequential_windows
from benchmarks.families.language.texts import data_files, find_text, missing_data
from tests.families.language.conftest import LINES

DATA_DIR = Path(os.environ.get("DFA_DATA_DIR", ""))
needs_data = pytest.mark.skipif(
    not os.environ.get("DFA_DATA_DIR") or bool(missing_data("wikitext2", DATA_DIR)), reason="WikiText-2 is not here"
)


def _numbers(count: int) -> np.ndarray:
    return np.arange(100, 100 + count, dtype=np.uint16)


def test_columns_and_windows_by_hand() -> None:
    # 23 tokens in 3 columns of 7; windows of 4 leave one of 2, and two tokens are left out.
    columns = Columns(_numbers(23), columns=3, window=4)
    first, second = columns.batches()
    assert len(columns) == 2
    assert first.inputs.tolist() == [[100, 101, 102, 103], [107, 108, 109, 110], [114, 115, 116, 117]]
    assert first.targets.tolist() == [[101, 102, 103, 104], [108, 109, 110, 111], [115, 116, 117, 118]]
    assert second.inputs.tolist() == [[104, 105], [111, 112], [118, 119]]
    assert second.targets.tolist() == [[105, 106], [112, 113], [119, 120]]
    assert first.inputs.dtype == torch.int64


def test_groups_are_the_columns_in_turn_and_batches_can_be_skipped() -> None:
    whole = Columns(_numbers(200), columns=6, window=8)
    groups = Columns(_numbers(200), columns=6, window=8, groups=3)
    assert len(groups) == 3 * len(whole) == len(list(groups.batches()))
    parts = list(groups.batches())
    for number, window in enumerate(whole.batches()):
        together = torch.cat([part.inputs for part in parts[3 * number : 3 * number + 3]])
        assert torch.equal(together, window.inputs)
    for skip in (0, 1, 7):
        rest = list(groups.batches(skip))
        assert len(rest) == len(parts) - skip
        assert all(torch.equal(a.targets, b.targets) for a, b in zip(rest, parts[skip:], strict=True))


def test_an_accelerator_gets_the_same_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    columns, resident = (Columns(_numbers(50), columns=4, window=5) for _ in range(2))
    resident._resident = torch.from_numpy(resident.ids.astype(np.int32))  # what `to` keeps on an accelerator
    for a, b in zip(columns.batches(), resident.batches(), strict=True):
        assert torch.equal(a.inputs, b.inputs) and torch.equal(a.targets, b.targets)
        assert b.inputs.dtype == torch.int64


@pytest.mark.parametrize("count", [2, 16, 17, 18, 33, 50])
def test_in_turn_every_token_but_the_first_is_a_target_once(count: int) -> None:
    ids = _numbers(count)
    seen: list[int] = []
    for inputs, targets in sequential_windows(ids, window=4, rows=3):
        assert inputs.shape == targets.shape and len(inputs) <= 3 and inputs.shape[1] <= 4
        for row, follows in zip(inputs.tolist(), targets.tolist(), strict=True):
            assert follows == [token + 1 for token in row]
            assert (row[0] - 100) % 4 == 0  # windows begin at multiples of their length
        seen += targets.flatten().tolist()
    assert seen == ids[1:].tolist()


def test_a_text_that_is_too_short_is_refused() -> None:
    with pytest.raises(DataError, match="5 tokens is too short for 3 columns"):
        Columns(_numbers(5), columns=3, window=4)
    with pytest.raises(DataError, match="nothing to predict"):
        next(sequential_windows(_numbers(1), 4, 4))


def test_lines_end_at_line_feeds_only(text_folder: Path) -> None:
    text = find_text("wikitext2", text_folder, "", False)
    assert list(text.lines("valid")) == LINES * 4


def test_missing_text_is_told(text_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DFA_CACHE_DIR", str(text_folder / "cache"))
    assert missing_data("wikitext2", text_folder) == "" == missing_data("plain_text", text_folder)
    (text_folder / "wikitext-2" / "wiki.train.tokens").unlink()
    reason = missing_data("wikitext2", text_folder)
    assert "missing wiki.train.tokens; run `python -m benchmarks fetch wikitext2`" in reason
    with pytest.raises(DataError) as raised:
        find_text("wikitext2", text_folder, "", False)
    assert str(raised.value) == reason
    monkeypatch.setenv("DFA_OFFLINE", "1")
    with pytest.raises(DataError, match="DFA_OFFLINE"):
        find_text("wikitext2", text_folder, "", True)


def test_a_text_that_no_hub_has_is_placed_by_hand(tmp_path: Path) -> None:
    reason = missing_data("enwiki2015", tmp_path)
    assert "enwiki-2015 is not complete in" in reason and reason.endswith(
        "train.txt, valid.txt, test.txt; place the files there"
    )
    for download in (False, True):
        with pytest.raises(DataError, match="place the files there"):
            find_text("enwiki2015", tmp_path, "", download)
    (tmp_path / "enwiki-2015").mkdir()
    for split in ("train", "valid", "test"):
        (tmp_path / "enwiki-2015" / f"{split}.txt").write_text(f"a text to {split}\n", encoding="utf-8")
    assert missing_data("enwiki2015", tmp_path) == ""
    assert list(find_text("enwiki2015", tmp_path, "", False).lines("valid")) == ["a text to valid"]
    names = [path.name for path in data_files("enwiki2015", tmp_path, {})]
    assert names == ["train.txt", "valid.txt", "test.txt"]


class Hub:
    """The hub's copy: a row for each line, the last split under another name."""

    def __init__(self, fail: bool = False) -> None:
        self.fail = fail
        self.asked: tuple[str, ...] = ()

    def __call__(self, *name: str) -> dict[str, Any]:
        self.asked = name
        if self.fail:
            raise RuntimeError("the hub is down")
        rows = [{"text": line + "\n" if line else ""} for line in LINES]
        return dict.fromkeys(("train", "validation", "test"), rows)


def test_wikitext_is_fetched_into_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DFA_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets, "load_dataset", hub := Hub())
    text = find_text("wikitext103", tmp_path, "", True)
    assert hub.asked == ("Salesforce/wikitext", "wikitext-103-v1")
    assert sorted(path.name for path in (tmp_path / "wikitext-103").iterdir()) == [
        "wiki.test.tokens", "wiki.train.tokens", "wiki.valid.tokens",
    ]  # fmt: skip
    assert list(text.lines("valid")) == LINES and missing_data("wikitext103", tmp_path) == ""


def test_folders_that_cannot_be_written_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, cache = tmp_path / "data", tmp_path / "cache"
    for folder in (data, cache):
        folder.mkdir(mode=0o555)
    monkeypatch.setenv("DFA_CACHE_DIR", str(cache))
    with pytest.raises(DataError) as raised:
        find_text("wikitext2", data, "", True)
    message = str(raised.value)
    assert f"can be written neither to {data / 'wikitext-2'} nor {cache / 'wikitext-2'};" in message
    assert "set DFA_CACHE_DIR to a writable folder" in message


def test_a_failing_hub_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DFA_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets, "load_dataset", Hub(fail=True))
    with pytest.raises(DataError, match="cannot be downloaded: the hub is down"):
        find_text("wikitext103", tmp_path, "", True)
    assert not list(tmp_path.rglob("*.tokens")) and missing_data("wikitext103", tmp_path)


def test_any_folder_of_text(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    with pytest.raises(DataError, match=r"no text in .*mine: put train.txt, valid.txt, test.txt there, or \*.txt"):
        find_text("plain_text", tmp_path, "mine", False)
    (folder / "b.txt").write_text("\n".join(f"line {n}" for n in range(60, 100)) + "\n")
    (folder / "a.txt").write_text("\n".join(f"line {n}" for n in range(60)) + "\n")
    text = find_text("plain_text", tmp_path, "mine", False)
    expected = {"train": range(90), "valid": range(90, 95), "test": range(95, 100)}
    for split, numbers in expected.items():
        assert list(text.lines(split)) == [f"line {n}" for n in numbers]
    assert set(text.checksums()) == {"a.txt", "b.txt"}
    for split in ("train", "valid"):
        (folder / f"book.{split}.txt").write_text(f"{split}\n")
    with pytest.raises(DataError, match=r"put test.txt there, or"):
        find_text("plain_text", tmp_path, "mine", False)
    (folder / "test.txt").write_text("test\n")
    named = find_text("plain_text", tmp_path, str(folder), False)
    assert [list(named.lines(split)) for split in expected] == [["train"], ["valid"], ["test"]]


def test_what_is_no_text_is_told(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"a\.txt cannot be read as text"):
        list(find_text("plain_text", tmp_path, "text", False).lines("train"))


@needs_data
def test_wikitext_2_has_the_published_number_of_words() -> None:
    """2,088,628, 217,646 and 245,569 with one end of line for each line (Merity et al., 2017)."""
    text = find_text("wikitext2", DATA_DIR, "", False)
    counts = [sum(len(line.split()) + 1 for line in text.lines(split)) for split in ("train", "valid", "test")]
    assert counts == [2_088_628, 217_646, 245_569]
