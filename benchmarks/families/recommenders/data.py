"""Click logs in memory or memory-mapped, their random split, and their batches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.errors import DataError
from benchmarks.utils.values import check_known

Rows = NDArray[np.int64]
Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class ClickLog:
    """Categorical ids and click labels.

    Attributes:
        groups: (columns, ids of shape (rows, len(columns))) for each storage type; together they cover every field
            once. A field is stored in the narrowest unsigned type that holds its ids.
        labels: 0 or 1, (rows,).
        field_sizes: number of ids of each field.
    """

    groups: tuple[tuple[tuple[int, ...], NDArray[np.unsignedinteger]], ...]
    labels: NDArray[np.uint8]
    field_sizes: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: Rows) -> Batch:
        """Return the ids (n, fields) int32 and labels (n,) float32 of rows given by index (n,)."""
        ids = np.empty((len(rows), len(self.field_sizes)), dtype=np.int32)
        for columns, array in self.groups:
            ids[:, columns] = np.take(array, rows, axis=0)
        return torch.from_numpy(ids), torch.from_numpy(np.take(self.labels, rows).astype(np.float32))

    @staticmethod
    def from_ids(ids: NDArray[np.integer], labels: NDArray[np.integer], field_sizes: Sequence[int]) -> "ClickLog":
        """Build a log in memory.

        Args:
            ids: (rows, fields), counted from 0 within each field.
            labels: 0 or 1, (rows,).
            field_sizes: number of ids of each field.

        Raises:
            DataError: there are no rows, or an id exceeds its field.
        """
        sizes = tuple(int(size) for size in field_sizes)
        if len(ids) == 0:
            raise DataError("the click log has no rows")
        if ids.min() < 0 or (ids.max(axis=0) >= np.asarray(sizes)).any():
            raise DataError("an id is outside the range of its field")
        groups = tuple(
            (columns, np.ascontiguousarray(ids[:, columns]).astype(dtype)) for dtype, columns in storage_groups(sizes)
        )
        return ClickLog(groups, labels.astype(np.uint8), sizes)


@dataclass(frozen=True)
class LoadedLog:
    """Click log with its provenance.

    Attributes:
        log: the log.
        name: name of the real data set, with the number of rows if it is a part; "" for a stand-in log.
        checksums: file name → sha256 of the files read.
        notes: facts for the record.
    """

    log: ClickLog
    name: str = ""
    checksums: dict[str, str] = field(default_factory=dict)
    notes: dict[str, float | str] = field(default_factory=dict)


def storage_groups(field_sizes: Sequence[int]) -> list[tuple[np.dtype[np.unsignedinteger], tuple[int, ...]]]:
    """Group fields by the narrowest unsigned type that holds their ids.

    Returns:
        (type, columns) of each group that is not empty, narrowest type first.
    """
    found: list[tuple[np.dtype[np.unsignedinteger], tuple[int, ...]]] = []
    types: tuple[tuple[type[np.unsignedinteger], int], ...] = ((np.uint8, 0), (np.uint16, 2**8), (np.uint32, 2**16))
    for dtype, low in types:
        high = np.iinfo(dtype).max + 1
        columns = tuple(f for f, size in enumerate(field_sizes) if low < size <= high)
        if columns:
            found.append((np.dtype(dtype), columns))
    return found


@dataclass(frozen=True)
class Split:
    """Row indices of the three parts, in random order, (rows,) each."""

    train: Rows
    valid: Rows
    test: Rows

    def part(self, name: str) -> Rows:
        """Return the row indices of a part.

        Raises:
            ConfigError: `name` is not "train", "valid" or "test".
        """
        parts = {"train": self.train, "valid": self.valid, "test": self.test}
        check_known("split", name, parts)
        return parts[name]


def random_split(rows: int, seed: int = 42) -> Split:
    """Split rows 80 / 10 / 10 % at random, by the same permutation as `torch.utils.data.random_split`.

    Args:
        rows: number of rows.
        seed: of the permutation; the published runs used 42.

    Raises:
        DataError: fewer than 10 rows.
    """
    if rows < 10:
        raise DataError(f"{rows} rows are too few to split 80 / 10 / 10 %; at least 10 are needed")
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(seed)).numpy()
    train, valid = int(rows * 0.8), int(rows * 0.1)
    return Split(order[:train], order[train : train + valid], order[train + valid :])


def epoch_order(rows: Rows, seed: int, epoch: int, shuffle: bool) -> Rows:
    """Return the rows in the order of an epoch, a function of seed and epoch; unchanged if `shuffle` is off."""
    if not shuffle:
        return rows
    draw = np.random.default_rng([seed, epoch])
    order = rows.copy()
    draw.shuffle(order)
    return order


def batches(log: ClickLog, order: Rows, batch_size: int, skip: int = 0) -> Iterator[Batch]:
    """Yield batches of consecutive rows of `order`, without the first `skip`; the last may be smaller."""
    for start in range(skip * batch_size, len(order), batch_size):
        yield log.take(order[start : start + batch_size])
