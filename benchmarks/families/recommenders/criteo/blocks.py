"""Blocks of a Criteo-like log as columns: from a text file, plain or gzip, or from other tables.

The text is cut into blocks at line ends, and pyarrow parses each block in a thread of its own (it releases the
interpreter's lock). Why pyarrow: see the measurements in the README of this folder.
"""

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol, cast

import pyarrow as pa
import pyarrow.csv as pc_csv

from benchmarks.errors import DataError
from benchmarks.families.recommenders.criteo.parse import FIELDS, INTEGERS, Parsed, parse_table
from benchmarks.families.recommenders.criteo.parse_fast import parse_plain

COLUMNS = [str(column) for column in range(FIELDS + 1)]
BLOCK_BYTES = 4 * 2**20  # fits a core's cache with what is made of it
_TEXTS = dict.fromkeys(COLUMNS, pa.binary())
_NUMBERS = {**_TEXTS, COLUMNS[0]: pa.uint8(), **dict.fromkeys(COLUMNS[1 : INTEGERS + 1], pa.int64())}


class Source(Protocol):
    """Where rows come from; `blocks` gives the same pieces in the same order each time it is called."""

    name: str

    def blocks(self) -> Iterator[object]:
        """Pieces in file order, each ready for `parse` in any thread."""

    def parse(self, block: object) -> Parsed:
        """A piece as keys, its malformed rows left out and counted."""

    def checksum(self) -> str:
        """What identifies the content, known once `blocks` has been used up."""

    def progress_total(self) -> int | None:
        """Size of the whole in the unit of `progress_of`; None where unknown."""

    def progress_of(self, block: object) -> int:
        """Size of a piece."""


class TextSource:
    """Criteo's `train.txt`, or the same gzipped.

    Raises:
        DataError: no such file.
    """

    def __init__(self, path: Path, block_bytes: int = BLOCK_BYTES) -> None:
        if not path.is_file():
            raise DataError(f"no file {path}")
        self.path, self.block_bytes, self.name = path, block_bytes, path.name
        self._checksum = ""

    def blocks(self) -> Iterator[bytes]:
        """Pieces of about `block_bytes` that end where a line ends. Raises DataError where the file cannot be read."""
        digest = hashlib.sha256()
        remainder = b""
        try:
            with self.path.open("rb") as raw:
                hashing = _HashingReader(raw, digest)
                packed = self.path.suffix == ".gz"
                stream = pa.input_stream(hashing, compression="gzip") if packed else hashing
                while piece := stream.read(self.block_bytes):
                    end = piece.rfind(b"\n") + 1
                    if not end:
                        remainder += piece
                        continue
                    yield b"".join((remainder, memoryview(piece)[:end]))
                    remainder = piece[end:]
        except OSError as error:
            raise DataError(f"{self.path} cannot be read: {error}") from None
        if remainder:
            yield remainder + b"\n"
        self._checksum = digest.hexdigest()

    def parse(self, block: object) -> Parsed:
        text = cast(bytes, block)
        return parse_plain(text) or parse_table(*parse_text(text))

    def checksum(self) -> str:
        return self._checksum

    def progress_total(self) -> int | None:
        return self.path.stat().st_size if self.path.suffix != ".gz" else None

    def progress_of(self, block: object) -> int:
        return len(cast(bytes, block))


class _HashingReader:
    """A file that digests what is read from it, so that the checksum costs no second reading."""

    def __init__(self, raw: BinaryIO, digest: "hashlib._Hash") -> None:
        self.raw, self.digest, self.closed = raw, digest, False

    def read(self, size: int = -1) -> bytes:
        piece = self.raw.read(size)
        self.digest.update(piece)
        return piece

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def close(self) -> None:
        self.closed = True


class _Skipped:
    """Counts the lines that the parser hands over because their number of columns is wrong."""

    def __init__(self) -> None:
        self.rows = 0
        self._lock = threading.Lock()

    def __call__(self, row: object) -> str:
        with self._lock:
            self.rows += 1
        return "skip"


def parse_text(block: bytes) -> tuple[pa.Table, int]:
    """Tab-separated lines as 40 columns, and how many lines had another number of columns.

    Label and integers become numbers where all of the block's are numbers; otherwise they stay text, for
    `vocabulary` to tell the good from the bad. Categories stay bytes.

    Raises:
        DataError: text that is no table at all.
    """
    try:
        return _read(block, _NUMBERS)
    except pa.ArrowInvalid:
        pass
    try:
        return _read(block, _TEXTS)
    except pa.ArrowInvalid as error:
        raise DataError(f"the click log cannot be parsed: {str(error).splitlines()[0]}") from None


def _read(block: bytes, types: dict[str, pa.DataType]) -> tuple[pa.Table, int]:
    skipped = _Skipped()
    table = pc_csv.read_csv(
        pa.BufferReader(block),
        read_options=pc_csv.ReadOptions(column_names=COLUMNS, use_threads=False, block_size=len(block) + 16),
        parse_options=pc_csv.ParseOptions(
            delimiter="\t",
            quote_char=False,
            newlines_in_values=False,
            ignore_empty_lines=False,
            invalid_row_handler=skipped,
        ),
        convert_options=pc_csv.ConvertOptions(
            column_types=types, null_values=[""], strings_can_be_null=False, check_utf8=False
        ),
    )
    return table, skipped.rows
