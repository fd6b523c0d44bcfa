"""Fast parsing of regular blocks, in which every line has 40 cells of at most 8 bytes; twice the speed of pyarrow.

Nearly all blocks are regular. Cells end at tabs and line ends; a cell's key is the 64-bit word at its start, with the
bytes beyond its end masked out. Integers are read once for each distinct text.
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.families.recommenders.criteo.parse import FIELDS, INTEGERS, Parsed
from benchmarks.families.recommenders.criteo.vocabulary import Keys, Mask, Numbers, bucket_keys

CELLS = FIELDS + 1
LONGEST = 8
_TAB, _LINE_END, _MINUS, _ZERO = b"\t\n-0"
_KEEP = np.array([(1 << (8 * length)) - 1 for length in range(LONGEST + 1)], dtype=np.uint64)


def parse_fast(block: bytes) -> Parsed | None:
    """Parse a block, with the keys of `parse_table`; return None if the block is not regular or a row is malformed."""
    data = np.frombuffer(block, dtype=np.uint8)
    line_ends = data == _LINE_END
    ends = np.flatnonzero(line_ends | (data == _TAB))
    lines = int(np.count_nonzero(line_ends))
    if b"\r" in block or len(ends) != lines * CELLS or not line_ends[ends[CELLS - 1 :: CELLS]].all():
        return None
    starts = np.concatenate([np.zeros(1, ends.dtype), ends[:-1] + 1])
    lengths = ends - starts
    if lengths.max(initial=0) > LONGEST:
        return None
    return _parsed(_words(block, starts, lengths).reshape(lines, CELLS))


def read_integers(words: Keys) -> tuple[Numbers, Mask, Mask]:
    """Convert texts of at most 8 bytes, packed in words (n,), to numbers.

    Returns:
        Numbers, a mask of empty texts, and a mask of texts that are neither empty nor of the form -?[0-9]+; (n,) each.
    """
    letters = np.ascontiguousarray(words, dtype="<u8").view(np.uint8).reshape(-1, LONGEST)
    negative = letters[:, 0] == _MINUS
    numbers = np.zeros(len(words), dtype=np.int64)
    proper = np.ones(len(words), dtype=bool)
    digits = np.zeros(len(words), dtype=np.int64)
    over = np.zeros(len(words), dtype=bool)
    for place in range(LONGEST):
        letter = letters[:, place]
        is_digit = (letter >= _ZERO) & (letter <= _ZERO + 9)
        numbers = np.where(is_digit, 10 * numbers + letter - _ZERO, numbers)
        digits += is_digit
        proper &= np.where(over, letter == 0, is_digit | (letter == 0) | ((place == 0) & negative))
        over |= letter == 0
    empty = words == 0
    return np.where(negative, -numbers, numbers), empty, ~empty & (~proper | (digits == 0))


def _words(block: bytes, starts: NDArray[np.intp], lengths: NDArray[np.intp]) -> Keys:
    padded = block + bytes(LONGEST)
    everywhere = np.ndarray((len(block) + 1,), dtype="<u8", buffer=padded, strides=(1,))
    words: Keys = everywhere[starts]
    words &= _KEEP[lengths]
    return words


def _parsed(words: Keys) -> Parsed | None:
    codes, texts = zip(*(pd.factorize(np.ascontiguousarray(words[:, cell])) for cell in range(CELLS)), strict=True)
    numbers = [read_integers(column) for column in texts[: INTEGERS + 1]]
    labels, unlabelled, _ = numbers[0]
    if any(improper.any() for _, _, improper in numbers) or unlabelled.any() or labels.min() < 0 or labels.max() > 1:
        return None
    buckets = [bucket_keys(read, empty) for read, empty, _ in numbers[1:]]
    return Parsed(labels[codes[0]].astype(np.uint8), [*buckets, *texts[INTEGERS + 1 :]], list(codes[1:]), 0)
