"""Values of a field as 64-bit keys, their counts, and the vocabulary of ids for the frequent ones."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Keys = NDArray[np.uint64]

Numbers = NDArray[np.int64]
Mask = NDArray[np.bool_]

MISSING = np.int64(-(2**62))  # key of a missing integer
_INTEGER = r"^-?[0-9]{1,18}\z"


def category_keys(column: pa.Array) -> Keys:
    """Return a key for each text: its bytes if there are at most 8, as in Criteo, otherwise a 64-bit hash.

    Short texts never collide with each other. The probability of a collision among n long texts is about n²/2^65.
    """
    count = len(column)
    if count == 0:
        return np.empty(0, dtype=np.uint64)
    _, offset_buffer, data_buffer = column.buffers()
    offsets = np.frombuffer(offset_buffer, dtype=np.int32)[column.offset : column.offset + count + 1]
    data = np.frombuffer(data_buffer or b"", dtype=np.uint8)
    lengths = np.diff(offsets)
    whole = lengths == 8
    if ((lengths == 0) | whole).all():  # as in Criteo: 8 hexadecimal digits or empty
        keys = np.zeros(count, dtype=np.uint64)
        keys[whole] = data[offsets[0] : offsets[-1]].view(np.uint64)
        return keys
    at = offsets[:-1, None] + np.arange(8)
    inside = np.arange(8) < lengths[:, None]
    # A spare zero byte, so that the end of the data is a valid index.
    padded = np.append(data, np.uint8(0))
    packed = np.where(inside, padded[np.minimum(at, len(data))], np.uint8(0))
    keys = packed.view(np.uint64).reshape(count)
    long = np.flatnonzero(lengths > 8)
    if len(long):
        keys[long] = pd.util.hash_array(np.array(column.take(pa.array(long)).to_pylist(), dtype=object))
    return keys


def integer_keys(column: pa.Array) -> tuple[Keys, Mask]:
    """Return the keys of integers in buckets, and a mask of cells that are neither empty nor an integer."""
    numbers, empty, bad = as_numbers(column)
    return bucket_keys(numbers, empty), bad


def bucket_keys(numbers: Numbers, empty: Mask) -> Keys:
    """Return the keys of integers, one for each bucket and one for `empty` cells, whose numbers are ignored."""
    return np.where(empty, MISSING, bucket_of(numbers)).view(np.uint64)


def bucket_of(numbers: Numbers) -> Numbers:
    """Put integers into buckets as in the published runs: v becomes ⌊(ln v)²⌋ if v > 2 and v − 2 otherwise.

    As v − 2 ≤ 0 < 1 ≤ ⌊(ln v)²⌋, the two cases do not collide.
    """
    squares = np.floor(np.log(np.maximum(numbers, 3)) ** 2).astype(np.int64)
    return np.where(numbers > 2, squares, numbers - 2)


def as_numbers(column: pa.Array) -> tuple[Numbers, Mask, Mask]:
    """Convert a column of integers or text to numbers.

    Returns:
        Numbers (0 where there is none), a mask of empty cells, and a mask of cells that hold something else.
    """
    if pa.types.is_integer(column.type):
        empty = _mask(column.is_null())
        return column.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64), empty, np.zeros_like(empty)
    texts = pc.utf8_trim_whitespace(_valid_text(column))
    none = pc.equal(texts, "")
    proper = pc.match_substring_regex(texts, _INTEGER)
    numbers = pc.if_else(proper, texts, "0").cast(pa.int64()).to_numpy(zero_copy_only=False)
    return numbers, _mask(none), _mask(pc.invert(pc.or_(none, proper)))


def _valid_text(column: pa.Array) -> pa.Array:
    """Decode bytes; invalid UTF-8 becomes text that is not a number."""
    try:
        return column.cast(pa.string())
    except pa.ArrowInvalid:
        return pa.array([value.decode(errors="replace") for value in column.to_pylist()], pa.string())


def _mask(array: pa.Array) -> Mask:
    mask: Mask = array.to_numpy(zero_copy_only=False)
    return mask


class Counter:
    """Counts of the keys of a field; uses 16 bytes per key, and twice that while merging.

    Added counts are merged when they outnumber the merged ones, so that every key is sorted only a few times.

    Attributes:
        keys: distinct keys, sorted, (n,); up to date after `merge`.
        counts: their counts, (n,).
    """

    def __init__(self) -> None:
        self.keys: Keys = np.empty(0, dtype=np.uint64)
        self.counts: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self._pending: list[tuple[Keys, NDArray[np.int64]]] = []
        self._waiting = 0

    def add(self, keys: Keys, counts: NDArray[np.int64]) -> None:
        """Add counts of keys, which may repeat."""
        self._pending.append((keys, counts))
        self._waiting += len(keys)
        if self._waiting > max(len(self.keys), 2**16):
            self.merge()

    def merge(self) -> None:
        """Merge all added counts into `keys` and `counts`."""
        if not self._pending:
            return
        keys = np.concatenate([self.keys, *(k for k, _ in self._pending)])
        counts = np.concatenate([self.counts, *(c for _, c in self._pending)])
        self._pending, self._waiting = [], 0
        self.keys, self.counts = sum_by_key(keys, counts)


def sum_by_key(keys: Keys, counts: NDArray[np.int64]) -> tuple[Keys, NDArray[np.int64]]:
    """Return the distinct keys, sorted, and the sums of their counts."""
    if len(keys) == 0:
        return keys, counts
    order = np.argsort(keys, kind="stable")
    keys, counts = keys[order], counts[order]
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    return keys[starts], np.add.reduceat(counts, starts)


@dataclass(frozen=True)
class Vocabulary:
    """Ids of a field's values: 0, 1, … by decreasing frequency, and `rare` for all other values.

    Sorting by frequency places the most-used rows of an embedding table next to each other.

    Attributes:
        keys: keys of the frequent values, sorted, (n,).
        ids: their ids, (n,).
    """

    keys: Keys
    ids: NDArray[np.int32]

    @staticmethod
    def of(counter: Counter, min_count: int) -> "Vocabulary":
        """Build the vocabulary of the values that occur at least `min_count` times."""
        counter.merge()
        keep = counter.counts >= min_count
        keys, counts = counter.keys[keep], counter.counts[keep]
        ids = np.empty(len(keys), dtype=np.int32)
        ids[np.argsort(-counts, kind="stable")] = np.arange(len(keys), dtype=np.int32)
        return Vocabulary(keys, ids)

    @property
    def rare(self) -> int:
        """Id of all rare values, the greatest id."""
        return len(self.keys)

    @property
    def size(self) -> int:
        """Number of ids, `rare` included."""
        return len(self.keys) + 1

    def encode(self, keys: Keys) -> NDArray[np.int32]:
        """Return the ids of keys, in the order of the keys."""
        if len(self.keys) == 0:
            return np.zeros(len(keys), dtype=np.int32)
        at = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[at] == keys, self.ids[at], np.int32(self.rare)).astype(np.int32)
