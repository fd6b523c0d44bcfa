"""From a log of any length to a cache of ids, in bounded memory.

The first pass parses the log block by block, counts every value of every field, and spills each block as its distinct
values and indices into them. The second pass knows the vocabularies and turns spilled blocks into ids: every distinct
value of a block is looked up once, the rest is array indexing. Both work on several blocks at once, in threads.
Memory holds a few blocks and the counts: 32 bytes at most for every distinct raw value of the log.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from benchmarks.errors import ConfigError, DataError
from benchmarks.families.recommenders.criteo.blocks import Source
from benchmarks.families.recommenders.criteo.parse import FIELDS
from benchmarks.families.recommenders.criteo.vocabulary import Counter, Keys, Vocabulary
from benchmarks.families.recommenders.data import storage_groups

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Counts:
    """What the first pass found: vocabularies, distinct values, good rows of every block, malformed rows in all."""

    vocabularies: list[Vocabulary]
    distinct: int
    rows: list[int]
    malformed: int


@dataclass(frozen=True)
class _Columns:
    """A block's good rows: for every field the keys that occur, and in `codes` (fields, rows) indices into them."""

    labels: NDArray[np.uint8]
    keys: list[Keys]
    codes: NDArray[np.unsignedinteger]


def count_values(source: Source, spill: Path, min_count: int, max_malformed: float, workers: int = 0) -> Counts:
    """First pass.

    Args:
        source: the log.
        spill: folder for the parsed blocks, about half as large as the text.
        min_count: a value seen less often in its field becomes the field's rare value.
        max_malformed: largest share of malformed rows.
        workers: threads; 0 = one per core.

    Raises:
        ConfigError: an option out of range.
        DataError: no good row, or too many malformed ones.
    """
    if min_count < 1 or not 0 <= max_malformed <= 1 or workers < 0:
        raise ConfigError("min_count must be at least 1, max_malformed within [0, 1], workers not negative")

    def count(numbered: tuple[int, object]) -> _Counted:
        number, block = numbered
        columns, malformed = _columns(source, block)
        _save(columns, _spilled(spill, number))
        fields = [
            (keys, np.bincount(codes, minlength=len(keys)))
            for keys, codes in zip(columns.keys, columns.codes, strict=True)
        ]
        return _Counted(fields, len(columns.labels), malformed, source.progress_of(block))

    _keep_freed_memory()
    counters = [Counter() for _ in range(FIELDS)]
    rows: list[int] = []
    malformed = 0
    with _progress("reading and counting", source.progress_total()) as advance:
        for counted in _in_threads(count, enumerate(source.blocks()), workers):
            for counter, (keys, counts) in zip(counters, counted.fields, strict=True):
                counter.add(keys, counts)
            rows.append(counted.rows)
            malformed += counted.malformed
            advance(counted.size)
    check_malformed(source.name, sum(rows), malformed, max_malformed)
    vocabularies = [Vocabulary.of(counter, min_count) for counter in counters]
    return Counts(vocabularies, sum(len(counter.keys) for counter in counters), rows, malformed)


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


def write_ids(counts: Counts, folder: Path, spill: Path, workers: int = 0) -> None:
    """Second pass: `labels.npy` and one `ids_<type>.npy` per storage type into `folder`, from the spilled blocks."""
    starts = np.concatenate([[0], np.cumsum(counts.rows)])
    sizes = [vocabulary.size for vocabulary in counts.vocabularies]
    groups = storage_groups(sizes)
    files = [
        np.lib.format.open_memmap(
            folder / ids_file(dtype), mode="w+", dtype=dtype, shape=(int(starts[-1]), len(columns))
        )
        for dtype, columns in groups
    ]
    labels = np.lib.format.open_memmap(folder / "labels.npy", mode="w+", dtype=np.uint8, shape=(int(starts[-1]),))

    def encode(number: int) -> int:
        columns = _load(_spilled(spill, number))
        span = slice(starts[number], starts[number + 1])
        labels[span] = columns.labels
        for (dtype, fields), file in zip(groups, files, strict=True):
            ids = np.empty((len(columns.labels), len(fields)), dtype=dtype)
            for position, field in enumerate(fields):
                known = counts.vocabularies[field].encode(columns.keys[field]).astype(dtype)
                # Indices are in range; "clip" spares numpy a copy that it makes to be able to raise.
                np.take(known, columns.codes[field], out=ids[:, position], mode="clip")
            file[span] = ids
        return counts.rows[number]

    with _progress("writing ids", int(starts[-1])) as advance:
        for rows in _in_threads(encode, range(len(counts.rows)), workers):
            advance(rows)
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
    size: int


def _columns(source: Source, block: object) -> tuple[_Columns, int]:
    """The block's good rows, and the number of malformed ones."""
    parsed = source.parse(block)
    narrow = np.uint16 if len(parsed.labels) <= 2**16 else np.uint32
    codes = np.empty((FIELDS, len(parsed.labels)), dtype=narrow)
    for field, column in enumerate(parsed.codes):
        codes[field] = column
    return _Columns(parsed.labels, parsed.keys, codes), parsed.malformed


def _keep_freed_memory() -> None:
    """Let the allocator keep the memory that one block frees for the next.

    glibc gives large allocations back to the system at once, until it has seen a larger one freed; to fetch them anew
    for every block would cost a quarter of the time. Elsewhere this does nothing. The threshold of
    `environment.keep_freed_memory`, made for training steps, costs a tenth more here, and older glibc refuses it.
    """
    np.empty(31 * 2**20, dtype=np.uint8)


def _spilled(spill: Path, number: int) -> Path:
    return spill / f"block_{number:06d}"


def _save(columns: _Columns, path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, columns.labels)
        np.save(file, columns.codes)
        np.save(file, np.array([len(keys) for keys in columns.keys]))
        np.save(file, np.concatenate(columns.keys))


def _load(path: Path) -> _Columns:
    with path.open("rb") as file:
        labels, codes, lengths, keys = (np.load(file) for _ in range(4))
    return _Columns(labels, np.split(keys, np.cumsum(lengths)[:-1]), codes)


def _in_threads(work: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    """Results in the order of the items; a few items are in flight at any time, which bounds the memory."""
    threads = workers or os.cpu_count() or 1
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > threads + 1:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


@contextmanager
def _progress(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=total)
        yield lambda size: bar.advance(task, size)
