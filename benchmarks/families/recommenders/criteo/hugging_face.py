"""Criteo logs on the Hugging Face hub, streamed as Arrow tables through `datasets`."""

import hashlib
import re
from collections.abc import Iterator
from typing import cast

import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.errors import DataError
from benchmarks.families.recommenders.criteo.blocks import COLUMNS
from benchmarks.families.recommenders.criteo.parse import INTEGERS, Parsed, parse_table

ROWS_PER_BLOCK = 32_768
_LABELS = ("label", "click", "clicked", "target")


class HuggingFaceSource:
    """Data set with a label, 13 integers and 26 categories.

    Columns are identified by name (`label`, `click`, `clicked` or `target`; I1…I13; C1…C26, in any case) or, if these
    names are absent and there are exactly 40 columns, by position. All splits are read in turn.

    Args:
        name: hub name such as "reczoo/Criteo_x4", or a local folder.

    Raises:
        DataError: the data set cannot be opened.
    """

    def __init__(self, name: str) -> None:
        import datasets

        self.name = name
        try:
            splits = datasets.load_dataset(name, streaming=True)
        except Exception as error:  # hub, network, file and parser errors share no base class
            raise DataError(f"Hugging Face data set '{name}' cannot be opened: {error}") from error
        self._splits = [splits[split].with_format("arrow") for split in splits]
        self._checksum = ""

    def blocks(self) -> Iterator[pa.Table]:
        """Yield tables of `ROWS_PER_BLOCK` rows with 40 text columns.

        Raises:
            DataError: the columns are not those of Criteo.
        """
        digest = hashlib.sha256()
        for split in self._splits:
            for table in split.iter(batch_size=ROWS_PER_BLOCK):
                block = as_criteo(table, self.name)
                for column in block.columns:
                    for chunk in column.chunks:
                        for buffer in chunk.buffers():
                            digest.update(buffer or b"")
                yield block
        self._checksum = digest.hexdigest()

    def parse(self, block: object) -> Parsed:
        """Parse a block; malformed rows are left out and counted."""
        return parse_table(cast(pa.Table, block))

    def checksum(self) -> str:
        """Return the sha256 of the columns' content, which is known after all blocks have been read."""
        return self._checksum

    def progress_total(self) -> int | None:
        """Return None: the number of rows is unknown."""
        return None

    def progress_of(self, block: object) -> int:
        """Return the number of rows of a block."""
        return cast(pa.Table, block).num_rows


def as_criteo(table: pa.Table, name: str) -> pa.Table:
    """Convert a table to 40 text columns in Criteo's order, with missing values empty.

    Raises:
        DataError: the columns are not those of Criteo.
    """
    order = _column_order(table.column_names, name)
    columns = [_strings(table.column(source), number <= INTEGERS) for number, source in enumerate(order)]
    return pa.table(columns, names=COLUMNS)


def _column_order(names: list[str], data_set: str) -> list[str]:
    lower = {found.lower(): found for found in names}
    label = next((lower[known] for known in _LABELS if known in lower), None)
    features = [lower.get(f"i{number}") for number in range(1, INTEGERS + 1)]
    features += [lower.get(f"c{number}") for number in range(1, len(COLUMNS) - INTEGERS)]
    if label is not None and all(features):
        return [label, *cast(list[str], features)]
    if len(names) == len(COLUMNS) and not any(re.fullmatch(r"[ic]\d+", found) for found in lower):
        return names
    raise DataError(f"'{data_set}' lacks Criteo's columns (label, I1…I13, C1…C26); it has {', '.join(names[:45])}")


def _strings(column: pa.ChunkedArray, number: bool) -> pa.ChunkedArray:
    if number and pa.types.is_floating(column.type):
        # pandas turns integer columns with missing values into floats: 5.0 stands for 5.
        whole = pc.equal(column, pc.floor(column))
        if pc.all(whole).as_py() is not False:
            column = column.cast(pa.int64())
    return pc.fill_null(column.cast(pa.string()), "").combine_chunks()
