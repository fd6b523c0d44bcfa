"""Reading of a log in Criteo's format block by block, from a text file, plain or gzipped.

The text is divided into blocks at line ends, which pyarrow parses in parallel threads, since it releases the
interpreter lock. The family's README compares pyarrow with other parsers.
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
from benchmarks.families.recommenders.criteo.parse_fast import parse_fast
from benchmarks.utils.text import first_line

COLUMNS = [str(column) for column in range(FIELDS + 1)]
LONGEST_LINE = 64 * 2**20  # bytes; more would not be a row, and has to fit into memory
BLOCK_BYTES = 4 * 2**20  # a block and its parsed columns fit a core's cache
_TEXTS = dict.fromkeys(COLUMNS, pa.binary())
_NUMBERS = {**_TEXTS, COLUMNS[0]: pa.uint8(), **dict.fromkeys(COLUMNS[1 : INTEGERS + 1], pa.int64())}


class Source(Protocol):
    """Source of rows; every call of `blocks` yields the same blocks in the same order."""

    name: str

    def blocks(self) -> Iterator[object]:
        """Yield blocks in file order, each to be passed to `parse` in any thread."""

    def parse(self, block: object) -> Parsed:
        """Parse a block; malformed rows are left out and counted."""

    def checksum(self) -> str:
        """Return the checksum of the content, which is known after all blocks have been read."""

    def progress_total(self) -> int | None:
        """Return the total size in the unit of `progress_of`; None if unknown."""

    def progress_of(self, block: object) -> int:
        """Return the size of a block."""


class TextSource:
    """Text file in Criteo's format, plain or gzipped.

    Args:
        path: file; gzipped if it ends in ".gz".
        block_bytes: approximate size of a block.

    Raises:
        DataError: the file does not exist.
    """

    def __init__(self, path: Path, block_bytes: int = BLOCK_BYTES) -> None:
        if not path.is_file():
            raise DataError(f"no file {path}")
        self.path, self.block_bytes, self.name = path, block_bytes, path.name
        self._checksum = ""

    def blocks(self) -> Iterator[bytes]:
        """Yield blocks of about `block_bytes` that end at a line end.

        Raises:
            DataError: the file cannot be read.
        """
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
                        if len(remainder) > LONGEST_LINE:
                            raise DataError(f"{self.path}: a line has more than {LONGEST_LINE} bytes")
                        continue
                    yield b"".join((remainder, memoryview(piece)[:end]))
                    remainder = piece[end:]
        except OSError as error:
            raise DataError(f"{self.path} cannot be read: {error}") from None
        if remainder:
            yield remainder + b"\n"
        self._checksum = digest.hexdigest()

    def parse(self, block: object) -> Parsed:
        """Parse a block; malformed rows are left out and counted."""
        text = cast(bytes, block)
        return parse_fast(text) or parse_table(*parse_text(text))

    def checksum(self) -> str:
        """Return the sha256 of the file, which is known after all blocks have been read."""
        return self._checksum

    def progress_total(self) -> int | None:
        """Return the size of the file in bytes; None if it is gzipped."""
        return self.path.stat().st_size if self.path.suffix != ".gz" else None

    def progress_of(self, block: object) -> int:
        """Return the size of a block in bytes."""
        return len(cast(bytes, block))


class _HashingReader:
    """File object that hashes what is read, so that the checksum needs no second pass."""

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


class _SkippedRows:
    """Handler of rows with a wrong number of columns: skips and counts them."""

    def __init__(self) -> None:
        self.rows = 0
        self._lock = threading.Lock()

    def __call__(self, row: object) -> str:
        with self._lock:
            self.rows += 1
        return "skip"


def parse_text(block: bytes) -> tuple[pa.Table, int]:
    """Parse tab-separated lines.

    Returns:
        A table of 40 columns, and the number of lines with another number of columns. Label and integers are numbers if
        all of the block's are numbers, otherwise text, in which `vocabulary` finds the malformed cells. Categories are
        bytes.

    Raises:
        DataError: the text is not a table.
    """
    try:
        return _read(block, _NUMBERS)
    except pa.ArrowInvalid:
        pass
    try:
        return _read(block, _TEXTS)
    except pa.ArrowInvalid as error:
        raise DataError(f"the click log cannot be parsed: {first_line(error)}") from None


def _read(block: bytes, types: dict[str, pa.DataType]) -> tuple[pa.Table, int]:
    skipped = _SkippedRows()
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
