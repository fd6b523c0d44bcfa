"""Values of a field as 64-bit keys: counting them over blocks, and numbering those that are common enough."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Keys = NDArray[np.uint64]

Numbers = NDArray[np.int64]
Mask = NDArray[np.bool_]

MISSING = np.int64(-(2**62))  # the integer fields' "NULL"
_INTEGER = r"^-?[0-9]{1,18}\z"


def category_keys(column: pa.Array) -> Keys:
    """A key for each text: its bytes where there are at most 8, as in Criteo, otherwise a 64-bit hash.

    Short texts never collide with one another. Among n long ones a collision has a probability of about n²/2^65.
    """
    count = len(column)
    if count == 0:
        return np.empty(0, dtype=np.uint64)
    _, offset_buffer, data_buffer = column.buffers()
    offsets = np.frombuffer(offset_buffer, dtype=np.int32)[column.offset : column.offset + count + 1]
    data = np.frombuffer(data_buffer or b"", dtype=np.uint8)
    lengths = np.diff(offsets)
    whole = lengths == 8
    if ((lengths == 0) | whole).all():  # Criteo: 8 hexadecimal digits or nothing, so that the bytes are the keys
        keys = np.zeros(count, dtype=np.uint64)
        keys[whole] = data[offsets[0] : offsets[-1]].view(np.uint64)
        return keys
    at = offsets[:-1, None] + np.arange(8)
    inside = np.arange(8) < lengths[:, None]
    # One spare zero byte, so that the end of the data can be indexed.
    padded = np.append(data, np.uint8(0))
    packed = np.where(inside, padded[np.minimum(at, len(data))], np.uint8(0))
    keys = packed.view(np.uint64).reshape(count)
    long = np.flatnonzero(lengths > 8)
    if len(long):
        keys[long] = pd.util.hash_array(np.array(column.take(pa.array(long)).to_pylist(), dtype=object))
    return keys


def integer_keys(column: pa.Array) -> tuple[Keys, Mask]:
    """Keys of the discretised integers, and which cells are neither empty nor an integer.

    v → "NULL" where missing, ⌊(ln v)²⌋ for v > 2, v − 2 otherwise; v − 2 ≤ 0 < 1 ≤ ⌊(ln v)²⌋, so nothing collides.
    """
    numbers, empty, bad = as_numbers(column)
    return bucket_keys(numbers, empty), bad


def bucket_keys(numbers: Numbers, empty: Mask) -> Keys:
    """Keys of discretised integers (see `integer_keys`); where a cell is `empty` its number does not matter."""
    squares = np.floor(np.log(np.maximum(numbers, 3)) ** 2).astype(np.int64)
    return np.where(empty, MISSING, np.where(numbers > 2, squares, numbers - 2)).view(np.uint64)


def as_numbers(column: pa.Array) -> tuple[Numbers, Mask, Mask]:
    """Numbers (0 where there is none), which cells are empty, and which hold something else than an integer."""
    if pa.types.is_integer(column.type):
        empty = _mask(column.is_null())
        return column.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64), empty, np.zeros_like(empty)
    texts = pc.utf8_trim_whitespace(_valid_text(column))
    none = pc.equal(texts, "")
    proper = pc.match_substring_regex(texts, _INTEGER)
    numbers = pc.if_else(proper, texts, "0").cast(pa.int64()).to_numpy(zero_copy_only=False)
    return numbers, _mask(none), _mask(pc.invert(pc.or_(none, proper)))


def _valid_text(column: pa.Array) -> pa.Array:
    """Bytes as text; what is not UTF-8 becomes a text that is no number."""
    try:
        return column.cast(pa.string())
    except pa.ArrowInvalid:
        return pa.array([value.decode(errors="replace") for value in column.to_pylist()], pa.string())


def _mask(array: pa.Array) -> Mask:
    mask: Mask = array.to_numpy(zero_copy_only=False)
    return mask


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
