"""Parsing of a block of the log into 64-bit keys, without its malformed rows."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from benchmarks.families.recommenders.criteo.vocabulary import Keys, as_numbers, category_keys, integer_keys

INTEGERS = 13
CATEGORIES = 26
FIELDS = INTEGERS + CATEGORIES


@dataclass(frozen=True)
class Parsed:
    """Well-formed rows of a block.

    Attributes:
        labels: 0 or 1, (rows,).
        keys: keys of each field, in any order and possibly with repetitions.
        codes: indices into `keys` of each field, (rows,).
        malformed: number of rows left out.
    """

    labels: NDArray[np.uint8]
    keys: list[Keys]
    codes: list[NDArray[np.intp]]
    malformed: int


def parse_table(table: pa.Table, malformed: int = 0) -> Parsed:
    """Parse a table of 40 columns, label first.

    Args:
        table: label and integers are numbers with nulls, or text; categories are text.
        malformed: number of rows that were left out before.
    """
    arrays = [_one_chunk(table.column(number)) for number in range(FIELDS + 1)]
    labels, empty, bad = as_numbers(arrays[0])
    bad = bad | empty | (labels < 0) | (labels > 1)
    keys: list[Keys] = []
    for field, array in enumerate(arrays[1:]):
        if field < INTEGERS:
            found, improper = integer_keys(array)
            bad |= improper
        else:
            found = category_keys(array)
        keys.append(found)
    if bad.any():
        labels, keys = labels[~bad], [column[~bad] for column in keys]
    codes, distinct = zip(*map(pd.factorize, keys), strict=True)
    return Parsed(labels.astype(np.uint8), list(distinct), list(codes), malformed + int(bad.sum()))


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    array = column.combine_chunks()
    return pa.concat_arrays(array.chunks) if isinstance(array, pa.ChunkedArray) else array
