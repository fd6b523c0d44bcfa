"""Writing a generated click log as text in Criteo's format, of any length, in pieces."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks.recommenders.stand_in import CATEGORIES, INTEGERS, ClickModel, ClickRows


def write_text_log(model: ClickModel, rows: int, path: Path, chunk: int = 250_000) -> NDArray[np.float64]:
    """Write `rows` rows to `path`: label, 13 integers, 26 categories of 8 hexadecimal digits, separated by tabs.

    Returns:
        (rows,) the true click probabilities.
    """
    tokens = [_tokens(field, size) for field, size in enumerate(model.vocabularies)]
    probabilities = []
    with path.open("wb") as file:
        for piece in model.chunks(rows, chunk):
            _frame(piece, tokens).write_csv(file, include_header=False, separator="\t", null_value="")
            probabilities.append(piece.probability)
    return np.concatenate(probabilities)


def _frame(rows: ClickRows, tokens: list[pl.Series]) -> pl.DataFrame:
    return pl.DataFrame([pl.Series("label", rows.labels), *_integer_columns(rows), *_category_columns(rows, tokens)])


def _integer_columns(rows: ClickRows) -> Iterable[pl.Series]:
    for field in range(INTEGERS):
        column = pl.Series(f"I{field + 1}", rows.integers[:, field])
        yield column.set(pl.Series(rows.missing[:, field]), None)


def _category_columns(rows: ClickRows, tokens: list[pl.Series]) -> Iterable[pl.Series]:
    for field in range(CATEGORIES):
        column = tokens[field].gather(rows.categories[:, field]).alias(f"C{field + 1}")
        yield column.set(pl.Series(rows.missing[:, INTEGERS + field]), None)


def _tokens(field: int, size: int) -> pl.Series:
    """Distinct 8-digit hexadecimal names of a field's values."""
    # An odd multiplier permutes the 32-bit numbers, so that no two ranks share a name.
    ranks = np.arange(size, dtype=np.uint64) + np.uint64(field * 0x01000193)
    numbers = (ranks * np.uint64(2654435761)) & np.uint64(0xFFFFFFFF)
    digits = (numbers[:, None] >> np.arange(28, -4, -4, dtype=np.uint64)) & np.uint64(15)
    letters = np.frombuffer(b"0123456789abcdef", dtype=np.uint8)[digits]
    return pl.Series(np.ascontiguousarray(letters).view("S8").ravel().astype(str))
