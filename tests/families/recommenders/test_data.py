"""Logs in memory, splits, the order of batches, and the small loaders."""

import os
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from torch.utils.data import TensorDataset

from benchmarks.errors import ConfigError, DataError
from benchmarks.families.recommenders import movielens
from benchmarks.families.recommenders.data import ClickLog, batches, epoch_order, random_split, storage_groups
from benchmarks.families.recommenders.movielens import load_movielens, read_ratings
from benchmarks.families.recommenders.published import data_files, missing_data


@pytest.fixture
def table() -> np.ndarray:
    draw = np.random.default_rng(0)
    return np.stack([draw.integers(0, size, 1000) for size in (3, 256, 257, 70_000, 5)], axis=1)


def make_log(table: np.ndarray) -> ClickLog:
    return ClickLog.from_ids(table, np.arange(len(table)) % 2, (3, 256, 257, 70_000, 5))


def test_fields_are_kept_in_the_narrowest_type() -> None:
    assert storage_groups((3, 256, 257, 70_000, 5, 65_536)) == [
        (np.uint8, (0, 1, 4)),
        (np.uint16, (2, 5)),
        (np.uint32, (3,)),
    ]


def test_take_gives_back_what_went_in(table: np.ndarray) -> None:
    rows = np.array([5, 999, 0, 5])
    ids, labels = make_log(table).take(rows)
    assert ids.dtype == torch.int32 and labels.dtype == torch.float32
    assert ids.numpy().tolist() == table[rows].tolist()
    assert labels.tolist() == [1, 1, 0, 1]


def test_ids_outside_their_field_are_refused(table: np.ndarray) -> None:
    table[3, 2] = 257
    with pytest.raises(DataError, match="outside"):
        make_log(table)


def test_split_is_a_partition_in_torchs_own_order() -> None:
    split = random_split(1005)
    assert sorted(np.concatenate([split.train, split.valid, split.test])) == list(range(1005))
    whole = TensorDataset(torch.arange(1005))
    parts = torch.utils.data.random_split(whole, (804, 100, 101), torch.Generator().manual_seed(42))
    for ours, theirs in zip((split.train, split.valid, split.test), parts, strict=True):
        assert ours.tolist() == list(theirs.indices)
    with pytest.raises(ConfigError, match="known: train, valid, test"):
        split.part("validation")
    with pytest.raises(DataError, match="too few"):
        random_split(9)


def test_orders_depend_on_seed_and_epoch_only() -> None:
    rows = np.arange(50, 150)
    first = epoch_order(rows, seed=1, epoch=1, shuffle=True)
    assert np.array_equal(first, epoch_order(rows, seed=1, epoch=1, shuffle=True))
    assert sorted(first) == rows.tolist()
    assert not np.array_equal(first, epoch_order(rows, seed=1, epoch=2, shuffle=True))
    assert not np.array_equal(first, epoch_order(rows, seed=2, epoch=1, shuffle=True))
    assert np.array_equal(epoch_order(rows, 1, 7, shuffle=False), rows)


def test_batches_cover_the_order_and_skip_cheaply(table: np.ndarray) -> None:
    log, order = make_log(table), np.random.default_rng(1).permutation(1000)
    whole = list(batches(log, order, 64))
    assert [len(labels) for _, labels in whole] == [64] * 15 + [40]
    assert torch.cat([ids for ids, _ in whole]).numpy().tolist() == table[order].tolist()
    rest = list(batches(log, order, 64, skip=13))
    assert len(rest) == 3 and torch.equal(rest[0][0], whole[13][0])


@pytest.mark.parametrize(("separator", "header"), [("\t", ""), ("::", ""), ("|", "user|item|rating|timestamp\n")])
def test_ratings_above_three_are_clicks(tmp_path: Path, separator: str, header: str) -> None:
    path = tmp_path / "ratings"
    rows = [(1, 7, 5, 0), (3, 2, 3, 0), (2, 2, 4, 0), (1, 1, 1, 0)]
    path.write_text(header + "".join(separator.join(map(str, row)) + "\n" for row in rows))
    log = read_ratings(path)
    assert log.field_sizes == (3, 7)
    ids, labels = log.take(np.arange(4))
    assert ids.tolist() == [[0, 6], [2, 1], [1, 1], [0, 0]]
    assert labels.tolist() == [1, 0, 1, 0]


@pytest.mark.parametrize("text", ["1\t2\t3\n", "1\t2\tx\t4\n", "0\t1\t4\t0\n", "", "user|item|rating|time\n"])
def test_broken_ratings_are_data_errors(tmp_path: Path, text: str) -> None:
    path = tmp_path / "u.data"
    path.write_text(text)
    with pytest.raises(DataError, match=r"u\.data"):
        read_ratings(path)


def test_movielens_100k_has_its_published_shape() -> None:
    folder = Path(os.environ.get("DFA_DATA_DIR", ""))
    if not (folder / "ml-100k" / "u.data").is_file():
        pytest.skip("no MovieLens-100k in DFA_DATA_DIR")
    loaded = load_movielens("100k", folder)
    assert loaded.log.field_sizes == (943, 1682) and len(loaded.log) == 100_000
    # 34,174 ratings of 4 and 21,201 of 5, as its documentation counts them.
    assert loaded.log.labels.sum() == 55_375


def test_missing_movielens_says_where_to_put_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"ml-1m/ratings\.dat.*python -m benchmarks fetch movielens_1m"):
        load_movielens("1m", tmp_path)


def test_movielens_goes_to_the_cache_where_the_data_folder_is_read_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetched(urls: list[str], target: Path, sha256: str) -> Path:
        assert urls == ["https://files.grouplens.org/datasets/movielens/ml-1m.zip"]
        with zipfile.ZipFile(target, "w") as packed:
            packed.writestr("ml-1m/ratings.dat", "1::1193::5::978300760\n2::661::3::978302109\n")
        return target

    monkeypatch.setattr(movielens, "fetch", fetched)
    monkeypatch.setenv("DFA_CACHE_DIR", str(tmp_path / "cache"))
    data = tmp_path / "data"
    data.mkdir(mode=0o555)
    assert missing_data("movielens_1m", data) and data_files("movielens_1m", data, {}) == []
    loaded = load_movielens("1m", data, download=True)
    assert loaded.log.labels.tolist() == [1, 0] and not list(data.iterdir())
    file = tmp_path / "cache" / "ml-1m" / "ratings.dat"
    assert missing_data("movielens_1m", data) == "" and data_files("movielens_1m", data, {}) == [file]
    assert load_movielens("1m", data).checksums == loaded.checksums


def test_hugging_face_folder_equals_the_text_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same rows as text and as a local data set with floats where integers are missing."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    pytest.importorskip("datasets")
    from benchmarks.families.recommenders.criteo.blocks import TextSource
    from benchmarks.families.recommenders.criteo.cache import open_cache, prepare
    from benchmarks.families.recommenders.criteo.hugging_face import HuggingFaceSource
    from benchmarks.families.recommenders.stand_in import ClickModel, write_text_log

    text = tmp_path / "train.txt"
    write_text_log(ClickModel(1, 200), 500, text)
    names = ["Label", *(f"I{n}" for n in range(1, 14)), *(f"C{n}" for n in range(1, 27))]
    frame = pl.read_csv(text, separator="\t", has_header=False, new_columns=names, infer_schema_length=None,
                        schema_overrides=dict.fromkeys(names[14:], pl.String))  # fmt: skip
    frame = frame.with_columns(pl.col(names[1:14]).cast(pl.Float64))
    folder = tmp_path / "copy"
    folder.mkdir()
    frame.select([*reversed(names)]).write_parquet(folder / "train.parquet")
    ours = open_cache(prepare(HuggingFaceSource(str(folder)), tmp_path / "a"))
    plain = open_cache(prepare(TextSource(text), tmp_path / "b"))
    rows = np.arange(500)
    assert ours.field_sizes == plain.field_sizes
    assert all(torch.equal(a, b) for a, b in zip(ours.take(rows), plain.take(rows), strict=True))
    frame.rename({"C3": "X"}).write_parquet(folder / "train.parquet")
    with pytest.raises(DataError, match="lacks Criteo's columns"):
        prepare(HuggingFaceSource(str(folder)), tmp_path / "c")
