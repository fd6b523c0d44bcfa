"""Preprocessing of a log of any length into ids, in bounded memory and two passes.

The first pass parses the log block by block, counts the values of every field, and writes each block to disk as its
distinct values and indices into them. The second pass converts these blocks to ids: it looks up every distinct value of
a block once; the rest is array indexing. Both process several blocks in parallel threads. Memory holds a few blocks and
the counts, at most 32 bytes for every distinct value of the log.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.errors import ConfigError, DataError
from benchmarks.families.recommenders.criteo.blocks import Source
from benchmarks.families.recommenders.criteo.parse import FIELDS
from benchmarks.families.recommenders.criteo.vocabulary import Counter, Keys, Vocabulary
from benchmarks.families.recommenders.data import storage_groups
from benchmarks.utils.progress import bar
from benchmarks.utils.threads import in_threads


@dataclass(frozen=True)
class Counts:
    """Result of the first pass.

    Attributes:
        vocabularies: vocabulary of each field.
        distinct: number of distinct values of all fields.
        rows: well-formed rows of each block.
        malformed: malformed rows of all blocks.
    """

    vocabularies: list[Vocabulary]
    distinct: int
    rows: list[int]
    malformed: int


@dataclass(frozen=True)
class _Columns:
    """Well-formed rows of a block: the keys of each field, and `codes` (fields, rows) as indices into them."""

    labels: NDArray[np.uint8]
    keys: list[Keys]
    codes: NDArray[np.unsignedinteger]


def count_values(source: Source, spill: Path, min_count: int, max_malformed: float, workers: int = 0) -> Counts:
    """Run the first pass: parse and count.

    Args:
        source: the log.
        spill: folder for the parsed blocks, about half the size of the text.
        min_count: values that occur less often in a field share its rare id.
        max_malformed: greatest share of malformed rows.
        workers: number of threads; 0 for one per core.

    Raises:
        ConfigError: an option is out of range.
        DataError: there is no well-formed row, or there are too many malformed ones.
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
    with bar("reading and counting", source.progress_total()) as advance:
        for counted in in_threads(count, enumerate(source.blocks()), workers):
            for counter, (keys, counts) in zip(counters, counted.fields, strict=True):
                counter.add(keys, counts)
            rows.append(counted.rows)
            malformed += counted.malformed
            advance(counted.size)
    check_malformed(source.name, sum(rows), malformed, max_malformed)
    vocabularies = [Vocabulary.of(counter, min_count) for counter in counters]
    return Counts(vocabularies, sum(len(counter.keys) for counter in counters), rows, malformed)


def check_malformed(name: str, rows: int, malformed: int, most: float) -> None:
    """Check the share of malformed rows.

    Args:
        name: name of the log for error messages.
        rows: number of well-formed rows.
        malformed: number of malformed rows.
        most: greatest share of malformed rows.

    Raises:
        DataError: there is no well-formed row, or the share is exceeded.
    """
    total = rows + malformed
    if rows == 0:
        raise DataError(
            f"{name} has no well-formed row ({malformed} malformed): expected a label, 13 integers and 26 categories"
        )
    if malformed > most * total:
        raise DataError(
            f"{name}: {malformed} of {total} rows are malformed ({malformed / total:.2%}), more than max_malformed="
            f"{most:g} allows; check the file, or raise the option"
        )


def write_ids(counts: Counts, folder: Path, spill: Path, workers: int = 0) -> None:
    """Run the second pass: write `labels.npy` and `ids_<type>.npy` for each storage type.

    Args:
        counts: result of the first pass.
        folder: folder to write to.
        spill: folder of the parsed blocks.
        workers: number of threads; 0 for one per core.
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
    labels = np.lib.format.open_memmap(folder / "labels.npy", mode="w+", dtype=np.uint8, shape=(int(starts[-1]),))

    def encode(number: int) -> int:
        columns = _load(_spilled(spill, number))
        span = slice(starts[number], starts[number + 1])
        labels[span] = columns.labels
        for (dtype, fields), file in zip(groups, files, strict=True):
            ids = np.empty((len(columns.labels), len(fields)), dtype=dtype)
            for position, field in enumerate(fields):
                known = counts.vocabularies[field].encode(columns.keys[field]).astype(dtype)
                # Indices are in range; mode="clip" avoids the copy that NumPy makes for mode="raise".
                np.take(known, columns.codes[field], out=ids[:, position], mode="clip")
            file[span] = ids
        return counts.rows[number]

    with bar("writing ids", int(starts[-1])) as advance:
        for rows in in_threads(encode, range(len(counts.rows)), workers):
            advance(rows)
    for file in (*files, labels):
        file.flush()


def ids_file(dtype: np.dtype[np.unsignedinteger]) -> str:
    """Return the name of the file with the ids stored as `dtype`."""
    return f"ids_{dtype.name}.npy"


@dataclass(frozen=True)
class _Counted:
    fields: list[tuple[Keys, NDArray[np.int64]]]
    rows: int
    malformed: int
    size: int


def _columns(source: Source, block: object) -> tuple[_Columns, int]:
    """Return the well-formed rows of a block and the number of malformed ones."""
    parsed = source.parse(block)
    narrow = np.uint16 if len(parsed.labels) <= 2**16 else np.uint32
    codes = np.empty((FIELDS, len(parsed.labels)), dtype=narrow)
    for field, column in enumerate(parsed.codes):
        codes[field] = column
    return _Columns(parsed.labels, parsed.keys, codes), parsed.malformed


def _keep_freed_memory() -> None:
    """Let glibc keep the memory that one block frees for the next, which saves a quarter of the time.

    glibc returns large blocks to the system until a larger one has been freed, as is done here. `keep_freed_memory`,
    meant for training steps, is a tenth slower here.
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
