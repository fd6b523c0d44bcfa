"""From a log of any length to a cache of ids, in two passes over blocks and in bounded memory.

Pass one counts every value of every field; pass two, knowing the vocabularies, writes ids. Blocks are parsed, counted
and encoded in threads; per block each distinct value is looked at once, and the rest is array indexing. Memory holds
a few blocks and the counts: 32 bytes for every distinct raw value of the log at most.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from benchmarks.errors import ConfigError, DataError
from benchmarks.recommenders.blocks import FIELDS, INTEGERS, Source
from benchmarks.recommenders.data import storage_groups
from benchmarks.recommenders.vocabulary import Counter, Keys, Vocabulary, category_keys, integer_keys

Result = TypeVar("Result")


@dataclass(frozen=True)
class Counts:
    """What the first pass found: vocabularies, good rows of every block, malformed rows of the whole."""

    vocabularies: list[Vocabulary]
    rows: list[int]
    malformed: int


@dataclass(frozen=True)
class _Columns:
    """A block: for every field the distinct values' keys, and a code into them for every good row."""

    labels: NDArray[np.uint8]
    keys: list[Keys]
    codes: list[NDArray[np.int32]]
    malformed: int


def count_values(source: Source, min_count: int, max_malformed: float, workers: int = 0) -> Counts:
    """First pass.

    Args:
        source: the log.
        min_count: a value seen less often in its field becomes the field's rare value.
        max_malformed: largest share of malformed rows.
        workers: threads; 0 = one per core.

    Raises:
        ConfigError: an option out of range.
        DataError: no good row, or too many malformed ones.
    """
    if min_count < 1 or not 0 <= max_malformed <= 1 or workers < 0:
        raise ConfigError("min_count must be at least 1, max_malformed within [0, 1], workers not negative")
    counters = [Counter() for _ in range(FIELDS)]
    rows: list[int] = []
    malformed = 0
    for counted in _over_blocks(source, lambda block: _count(source, block), workers, "counting values"):
        for counter, (keys, counts) in zip(counters, counted.fields, strict=True):
            counter.add(keys, counts)
        rows.append(counted.rows)
        malformed += counted.malformed
    check_malformed(source.name, sum(rows), malformed, max_malformed)
    return Counts([Vocabulary.of(counter, min_count) for counter in counters], rows, malformed)


def check_malformed(name: str, rows: int, malformed: int, most: float) -> None:
    """Raises DataError where no row is good or more than the share `most` is malformed."""
    total = rows + malformed
    if rows == 0:
        raise DataError(
            f"{name} has no good row ({malformed} malformed): expected a label, 13 integers and 26 categories"
        )
    if malformed > most * total:
        raise DataError(
            f"{name}: {malformed} of {total} rows are malformed ({malformed / total:.2%}), more than max_malformed="
            f"{most:g} allows; check the file, or raise the option"
        )


def write_ids(source: Source, counts: Counts, folder: Path, workers: int = 0) -> None:
    """Second pass: `labels.npy` and one `ids_<type>.npy` per storage type into `folder`.

    Raises:
        DataError: the log changed between the passes.
    """
    starts = np.concatenate([[0], np.cumsum(counts.rows)])
    sizes = [vocabulary.size for vocabulary in counts.vocabularies]
    groups = storage_groups(sizes)
    files = [
        np.lib.format.open_memmap(
            folder / ids_file(dtype), mode="w+", dtype=dtype, shape=(int(starts[-1]), len(columns))
        )
        for dtype, columns in groups
    ]
    labels = np.lib.format.open_memmap(
        folder / "labels.npy", mode="w+", dtype=np.uint8, shape=(int(starts[-1]),)
    )

    def encode(numbered: tuple[int, object]) -> int:
        number, block = numbered
        columns = _columns(source, block)
        if number >= len(counts.rows) or len(columns.labels) != counts.rows[number]:
            raise DataError(f"{source.name} changed while it was read")
        span = slice(starts[number], starts[number + 1])
        labels[span] = columns.labels
        for (dtype, fields), file in zip(groups, files, strict=True):
            ids = np.empty((len(columns.labels), len(fields)), dtype=dtype)
            for position, field in enumerate(fields):
                known = counts.vocabularies[field].encode(columns.keys[field]).astype(dtype)
                ids[:, position] = known[columns.codes[field]]
            file[span] = ids
        return len(columns.labels)

    written = sum(_over_blocks(source, encode, workers, "writing ids", numbered=True))
    if written != starts[-1]:
        raise DataError(f"{source.name} changed while it was read")
    for file in (*files, labels):
        file.flush()


def ids_file(dtype: np.dtype[np.unsignedinteger]) -> str:
    """Name of the file that holds the ids stored as `dtype`."""
    return f"ids_{dtype.name}.npy"


@dataclass(frozen=True)
class _Counted:
    fields: list[tuple[Keys, NDArray[np.int64]]]
    rows: int
    malformed: int


def _count(source: Source, block: object) -> _Counted:
    columns = _columns(source, block)
    fields = []
    for keys, codes in zip(columns.keys, columns.codes, strict=True):
        counts = np.bincount(codes, minlength=len(keys))
        seen = counts > 0  # a value may have stood in malformed rows only
        fields.append((keys[seen], counts[seen]))
    return _Counted(fields, len(columns.labels), columns.malformed)


def _columns(source: Source, block: object) -> _Columns:
    table, malformed = source.parse(block)
    columns = [_dictionary(table.column(number)) for number in range(FIELDS + 1)]
    keys: list[Keys] = []
    label_texts = columns[0].dictionary.to_pylist()
    label_codes = columns[0].indices.to_numpy()
    wrong = np.array([text not in ("0", "1") for text in label_texts], dtype=np.bool_)
    bad = wrong[label_codes]
    for field, column in enumerate(columns[1:]):
        if field < INTEGERS:
            found, improper = integer_keys(column.dictionary)
            if improper.any():
                bad = bad | improper[column.indices.to_numpy()]
        else:
            found = category_keys(column.dictionary)
        keys.append(found)
    codes = [column.indices.to_numpy() for column in columns[1:]]
    clicked = np.array([text == "1" for text in label_texts], dtype=np.uint8)[label_codes]
    if bad.any():
        codes = [column[~bad] for column in codes]
        clicked = clicked[~bad]
    return _Columns(clicked, keys, codes, malformed + int(bad.sum()))


def _dictionary(column: pa.ChunkedArray) -> pa.DictionaryArray:
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    whole = column.unify_dictionaries().combine_chunks()
    if isinstance(whole, pa.ChunkedArray):  # no chunk at all: an empty table
        return pa.array([], type=column.type)
    return whole


def _over_blocks(
    source: Source, work: Callable[..., Result], workers: int, what: str, numbered: bool = False
) -> Iterator[Result]:
    """Results in block order; a few blocks are in flight at any time, which bounds the memory."""
    threads = workers or os.cpu_count() or 1
    waiting: deque[tuple[Future[Result], int]] = deque()
    with _progress(what, source.progress_total()) as advance, ThreadPoolExecutor(threads) as pool:
        try:
            for number, block in enumerate(source.blocks()):
                waiting.append((pool.submit(work, (number, block) if numbered else block), source.progress_of(block)))
                if len(waiting) > threads + 1:
                    future, size = waiting.popleft()
                    yield future.result()
                    advance(size)
            while waiting:
                future, size = waiting.popleft()
                yield future.result()
                advance(size)
        finally:
            for future, _ in waiting:
                future.cancel()


@contextmanager
def _progress(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        yield lambda size: bar.advance(task, size)
