"""Values of a field as 64-bit keys: counting them over blocks, and numbering those that are common enough."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Keys = NDArray[np.uint64]

MISSING = np.int64(-(2**62))  # the integer fields' "NULL"
_INTEGER = r"^-?[0-9]{1,18}\z"


def category_keys(values: pa.StringArray) -> Keys:
    """A key for each string: its bytes where there are at most 8, as in Criteo, otherwise a 64-bit hash.

    Short strings never collide with one another. Among n long ones a collision has a probability of about n²/2^65.
    """
    count = len(values)
    if count == 0:
        return np.empty(0, dtype=np.uint64)
    _, offset_buffer, data_buffer = values.buffers()
    offsets = np.frombuffer(offset_buffer, dtype=np.int32)[values.offset : values.offset + count + 1].astype(np.int64)
    data = np.frombuffer(data_buffer or b"", dtype=np.uint8)
    lengths = np.diff(offsets)
    at = offsets[:-1, None] + np.arange(8)
    inside = np.arange(8) < lengths[:, None]
    # One spare zero byte, so that an empty data buffer and the end of a full one can be indexed.
    padded = np.append(data, np.uint8(0))
    packed = np.where(inside, padded[np.minimum(at, len(data))], np.uint8(0))
    keys: Keys = np.ascontiguousarray(packed).view(np.uint64).reshape(count)
    long = np.flatnonzero(lengths > 8)
    if len(long):
        texts = np.array(values.take(pa.array(long)).to_pylist(), dtype=object)
        keys = keys.copy()
        keys[long] = pd.util.hash_array(texts, categorize=False)
    return keys


def integer_keys(values: pa.StringArray) -> tuple[Keys, NDArray[np.bool_]]:
    """Keys of the discretised integers, and which strings are neither empty nor an integer of at most 18 digits.

    v → "NULL" where missing, ⌊(ln v)²⌋ for v > 2, v − 2 otherwise; v − 2 ≤ 0 < 1 ≤ ⌊(ln v)²⌋, so nothing collides.
    """
    empty = pc.equal(values, "")
    proper = pc.match_substring_regex(values, _INTEGER)
    numbers = pc.if_else(proper, values, "0").cast(pa.int64()).to_numpy(zero_copy_only=False)
    bad = pc.invert(pc.or_(empty, proper)).to_numpy(zero_copy_only=False)
    squares = np.floor(np.log(np.maximum(numbers, 3)) ** 2).astype(np.int64)
    buckets = np.where(empty.to_numpy(zero_copy_only=False), MISSING, np.where(numbers > 2, squares, numbers - 2))
    return buckets.view(np.uint64), bad


class Counter:
    """How often each key of a field was seen. Memory: 16 bytes a key, and as much again while merging.

    Blocks are kept until they outweigh what is merged already, so that every key is sorted a few times only.
    """

    def __init__(self) -> None:
        self.keys: Keys = np.empty(0, dtype=np.uint64)
        self.counts: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self._pending: list[tuple[Keys, NDArray[np.int64]]] = []
        self._waiting = 0

    def add(self, keys: Keys, counts: NDArray[np.int64]) -> None:
        """Count keys, which may repeat."""
        self._pending.append((keys, counts))
        self._waiting += len(keys)
        if self._waiting > max(len(self.keys), 2**16):
            self.merge()

    def merge(self) -> None:
        """Bring `keys` (sorted, distinct) and `counts` up to date."""
        if not self._pending:
            return
        keys = np.concatenate([self.keys, *(k for k, _ in self._pending)])
        counts = np.concatenate([self.counts, *(c for _, c in self._pending)])
        self._pending, self._waiting = [], 0
        self.keys, self.counts = sum_by_key(keys, counts)


def sum_by_key(keys: Keys, counts: NDArray[np.int64]) -> tuple[Keys, NDArray[np.int64]]:
    """Distinct keys, sorted, with the sum of their counts."""
    if len(keys) == 0:
        return keys, counts
    order = np.argsort(keys, kind="stable")
    keys, counts = keys[order], counts[order]
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    return keys[starts], np.add.reduceat(counts, starts)


@dataclass(frozen=True)
class Vocabulary:
    """Ids of a field's values: 0, 1, … by falling frequency, and `rare` for all that is not among them.

    Common values come first so that the rows of an embedding table that are read most lie side by side.
    """

    keys: Keys
    ids: NDArray[np.int32]

    @staticmethod
    def of(counter: Counter, min_count: int) -> "Vocabulary":
        """Keep the values seen at least `min_count` times."""
        counter.merge()
        keep = counter.counts >= min_count
        keys, counts = counter.keys[keep], counter.counts[keep]
        ids = np.empty(len(keys), dtype=np.int32)
        ids[np.argsort(-counts, kind="stable")] = np.arange(len(keys), dtype=np.int32)
        return Vocabulary(keys, ids)

    @property
    def rare(self) -> int:
        """Id of the rare value, the last one."""
        return len(self.keys)

    @property
    def size(self) -> int:
        """Number of ids."""
        return len(self.keys) + 1

    def encode(self, keys: Keys) -> NDArray[np.int32]:
        """Ids of keys in any order."""
        if len(self.keys) == 0:
            return np.zeros(len(keys), dtype=np.int32)
        at = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[at] == keys, self.ids[at], np.int32(self.rare)).astype(np.int32)
