"""Preprocessing against an independent computation in plain Python."""

import errno
import gzip
import hashlib
import json
import math
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.errors import ConfigError, DataError
from benchmarks.families.recommenders.criteo import cache
from benchmarks.families.recommenders.criteo.blocks import TextSource, parse_text
from benchmarks.families.recommenders.criteo.cache import open_cache, prepare, read_manifest
from benchmarks.families.recommenders.criteo.parse import Parsed, parse_table
from benchmarks.families.recommenders.criteo.parse_fast import parse_fast, read_integers
from benchmarks.families.recommenders.data import ClickLog
from benchmarks.families.recommenders.stand_in import ClickModel, write_text_log

FIELDS = 39


def plain_rows(path: Path) -> tuple[list[int], list[list[str]]]:
    """Labels and discretised values, one line at a time."""
    labels, rows = [], []
    for line in path.read_text().split("\n")[:-1]:
        label, *values = line.split("\t")
        for field in range(13):
            if values[field] == "":
                values[field] = "NULL"
            else:
                v = int(values[field])
                values[field] = str(math.floor(math.log(v) ** 2)) if v > 2 else str(v - 2)
        labels.append(int(label))
        rows.append(values)
    return labels, rows


def assert_equals_plain(log: ClickLog, path: Path, min_count: int = 10) -> None:
    labels, rows = plain_rows(path)
    ids, found_labels = log.take(np.arange(len(log)))
    assert len(log) == len(rows)
    assert found_labels.tolist() == labels
    for field in range(FIELDS):
        column = [row[field] for row in rows]
        counts = Counter(column)
        common = {value for value, count in counts.items() if count >= min_count}
        assert log.field_sizes[field] == len(common) + 1, f"field {field}"
        pairs = Counter(
            (value if value in common else None, number)
            for value, number in zip(column, ids[:, field].tolist(), strict=True)
        )
        # One id per common value and one for all rare ones, so that the pairs are a bijection.
        assert len({value for value, _ in pairs}) == len({number for _, number in pairs}) == len(pairs)
        if (None in {value for value, _ in pairs}):  # fmt: skip
            assert next(number for value, number in pairs if value is None) == len(common)
        by_id = [count for (value, _), count in sorted(pairs.items(), key=lambda item: item[0][1]) if value]
        assert by_id == sorted(by_id, reverse=True), "common values come first"


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("log") / "train.txt"
    write_text_log(ClickModel(3, vocabulary=500), 3000, path)
    return path


@pytest.mark.parametrize(("block_bytes", "workers"), [(2**22, 1), (20_000, 3), (3000, 2)])
def test_generated_log_equals_plain_python(generated: Path, tmp_path: Path, block_bytes: int, workers: int) -> None:
    folder = prepare(TextSource(generated, block_bytes), tmp_path, workers=workers)
    assert_equals_plain(open_cache(folder), generated)
    manifest = read_manifest(folder)
    assert manifest.sha256 == hashlib.sha256(generated.read_bytes()).hexdigest()
    assert manifest.distinct_values == sum(len(set(column)) for column in zip(*plain_rows(generated)[1], strict=True))


def test_real_rows_equal_plain_python(tmp_path: Path) -> None:
    path = Path(os.environ.get("DFA_DATA_DIR", "")) / "criteo" / "train_8000.txt"
    if not path.is_file():
        pytest.skip("no Criteo sample in DFA_DATA_DIR")
    log = open_cache(prepare(TextSource(path), tmp_path))
    assert len(log) == 8000
    assert_equals_plain(log, path)


def test_gzip_gives_the_same_ids(generated: Path, tmp_path: Path) -> None:
    packed = tmp_path / "train.txt.gz"
    packed.write_bytes(gzip.compress(generated.read_bytes()))
    log = open_cache(prepare(TextSource(packed, 50_000), tmp_path / "cache"))
    assert_equals_plain(log, generated)


def test_a_broken_gzip_file_is_a_data_error(generated: Path, tmp_path: Path) -> None:
    packed = tmp_path / "train.txt.gz"
    packed.write_bytes(gzip.compress(generated.read_bytes())[:-2000])
    with pytest.raises(DataError, match=r"train\.txt\.gz"):
        prepare(TextSource(packed), tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("log-*"))


def test_a_file_that_cannot_be_opened_is_no_fault_of_the_cache(
    generated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = Path.open

    def refuse(path: Path, *arguments: Any, **options: Any) -> Any:
        if path == generated:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return genuine(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DataError, match=r"^\S*train\.txt cannot be read: .*Permission denied"):
        prepare(TextSource(generated), tmp_path)


BAD = {
    "too few columns": "0\t1\t2",
    "too many columns": "\t".join(["0"] * 41),
    "no integer": "\t".join(["0", "x"] + ["1"] * 38),
    "fraction": "\t".join(["0", "1.5"] + ["1"] * 38),
    "label of two": "\t".join(["2"] + ["1"] * 39),
    "no label": "\t".join([""] + ["1"] * 39),
    "empty line": "",
    "huge integer": "\t".join(["0", "9" * 30] + ["1"] * 38),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_malformed_rows_are_counted_and_left_out(generated: Path, tmp_path: Path, bad: str) -> None:
    lines = generated.read_text().splitlines()
    path = tmp_path / "train.txt"
    path.write_text("\n".join([*lines[:100], bad, *lines[100:], bad]) + "\n")
    folder = prepare(TextSource(path, 50_000), tmp_path / "cache", max_malformed=0.01)
    assert read_manifest(folder).malformed == 2
    assert_equals_plain(open_cache(folder), generated)
    with pytest.raises(DataError, match=r"2 of 3002 rows are malformed"):  # also where a cache exists already
        prepare(TextSource(path), tmp_path / "cache", max_malformed=0.0001)
    with pytest.raises(DataError, match="malformed"):
        prepare(TextSource(path), tmp_path / "another", max_malformed=0.0001)
    assert not list((tmp_path / "another").glob("log-*")) and not list((tmp_path / "another").glob(".building*"))


def test_values_of_other_lengths_stay_distinct(tmp_path: Path) -> None:
    """Texts shorter than 8 bytes, longer ones, with and without a common beginning."""
    values = ["", "a", "ab", "12345678", "123456789", "1234567890", "0", "é"]
    lines = ["\t".join(["1", *["5"] * 13, value, *["c"] * 25]) for value in values for _ in range(10)]
    path = tmp_path / "train.txt"
    path.write_text("\n".join(lines) + "\n")
    log = open_cache(prepare(TextSource(path), tmp_path))
    assert log.field_sizes[13] == len(values) + 1
    assert_equals_plain(log, path)


def test_windows_line_ends_and_a_missing_last_one(generated: Path, tmp_path: Path) -> None:
    path = tmp_path / "train.txt"
    path.write_bytes(generated.read_bytes().replace(b"\n", b"\r\n")[:-2])
    log = open_cache(prepare(TextSource(path, 30_000), tmp_path))
    assert_equals_plain(log, generated)


def rows_of(parsed: Parsed) -> list[tuple[int, ...]]:
    """Yield parsed rows one by one."""
    columns = [keys[codes] for keys, codes in zip(parsed.keys, parsed.codes, strict=True)]
    return [(int(label), *map(int, keys)) for label, *keys in zip(parsed.labels, *columns, strict=True)]


def test_ordinary_blocks_get_the_same_keys_with_and_without_the_parser(generated: Path) -> None:
    short = "\t".join(["1", "-3", "", "0", "007", "-0", *["12345678"] * 8, "a", "é", "", *["abcdefgh"] * 23]) + "\n"
    block = generated.read_bytes()[:300_000].rpartition(b"\n")[0] + b"\n" + short.encode() * 3
    quick = parse_fast(block)
    assert quick is not None and quick.malformed == 0
    assert rows_of(quick) == rows_of(parse_table(*parse_text(block)))


def test_texts_are_read_as_integers_one_by_one() -> None:
    texts = ["0", "7", "-1", "12345678", "-1234567", "", "-", "1-", "--1", "1.5", " 1", "x", "+1", "1e3"]
    words = np.array([int.from_bytes(text.encode(), "little") for text in texts], dtype=np.uint64)
    numbers, empty, improper = read_integers(words)
    for n, text in enumerate(texts):
        whole = re.fullmatch("-?[0-9]+", text)
        assert empty[n] == (text == "") and improper[n] == (whole is None and text != "")
        assert not whole or numbers[n] == int(text)


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_blocks_with_a_malformed_line_are_left_to_the_parser(generated: Path, bad: str) -> None:
    lines = generated.read_text().splitlines()[:50]
    assert parse_fast(("\n".join(lines) + "\n").encode()) is not None
    assert parse_fast(("\n".join([*lines, bad, lines[0]]) + "\n").encode()) is None
    # Columns that two lines have too few and too many of do not make up for each other.
    cells = lines[0].split("\t")
    assert parse_fast("\n".join(["\t".join(cells[:-1]), "\t".join([*cells, "a"]), ""]).encode()) is None


def test_logarithms_match_the_standard_library() -> None:
    import pyarrow as pa

    from benchmarks.families.recommenders.criteo.vocabulary import MISSING, integer_keys

    numbers = [*range(-5, 200_000), *(10**k + d for k in range(6, 15) for d in (-1, 0, 1))]
    keys, bad = integer_keys(pa.array([*numbers, None], pa.int64()))
    expected = [math.floor(math.log(v) ** 2) if v > 2 else v - 2 for v in numbers]
    assert keys.view(np.int64).tolist() == [*expected, int(MISSING)]
    assert not bad.any()


def test_a_second_call_reuses_the_cache_and_other_options_do_not(
    generated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prepare(TextSource(generated), tmp_path)
    monkeypatch.setattr(cache, "count_values", lambda *_: pytest.fail("built again"))
    assert prepare(TextSource(generated), tmp_path) == first
    monkeypatch.undo()
    other = prepare(TextSource(generated), tmp_path, min_count=3)
    assert other != first
    assert_equals_plain(open_cache(other), generated, min_count=3)


def test_a_changed_file_is_read_again(generated: Path, tmp_path: Path) -> None:
    path = tmp_path / "train.txt"
    path.write_bytes(generated.read_bytes())
    first = prepare(TextSource(path), tmp_path / "cache")
    path.write_text("".join(generated.read_text().splitlines(keepends=True)[:2000]))
    second = prepare(TextSource(path), tmp_path / "cache")
    assert first != second and len(open_cache(second)) == 2000


@pytest.mark.parametrize("stage", ["count_values", "write_ids"])
def test_an_interrupted_build_leaves_nothing(
    generated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    genuine = getattr(cache, stage)

    def interrupt(*arguments: object) -> None:
        genuine(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(cache, stage, interrupt)
    with pytest.raises(KeyboardInterrupt):
        prepare(TextSource(generated), tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.name != ".lock"] == []
    monkeypatch.undo()
    (tmp_path / ".building-killed").mkdir()  # what a killed process leaves is cleared by the next
    assert_equals_plain(open_cache(prepare(TextSource(generated), tmp_path)), generated)
    assert not list(tmp_path.glob(".building*"))


def test_damaged_caches_are_named(generated: Path, tmp_path: Path) -> None:
    folder = prepare(TextSource(generated), tmp_path)
    labels = folder / "labels.npy"
    labels.write_bytes(labels.read_bytes()[:200])
    with pytest.raises(DataError, match="delete it"):
        open_cache(folder)
    manifest = folder / "manifest.json"
    manifest.write_text(json.dumps({"rows": 1}))
    with pytest.raises(DataError, match="delete it"):
        open_cache(folder)


def test_bad_options_and_files(tmp_path: Path, generated: Path) -> None:
    with pytest.raises(DataError, match="no file"):
        TextSource(tmp_path / "none.txt")
    with pytest.raises(ConfigError, match="min_count"):
        prepare(TextSource(generated), tmp_path / "a", min_count=0)
    empty = tmp_path / "empty.txt"
    empty.touch()
    with pytest.raises(DataError, match="no well-formed row"):
        prepare(TextSource(empty), tmp_path / "b")
    with pytest.raises(DataError, match="cannot be written"):
        prepare(TextSource(generated), Path("/proc/nowhere"))
