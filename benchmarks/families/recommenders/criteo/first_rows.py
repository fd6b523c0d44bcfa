"""Look at the first rows of a text: whether it is a click log in Criteo's format at all."""

import gzip
import zlib
from pathlib import Path

from benchmarks.errors import DataError
from benchmarks.families.recommenders.criteo.parse import FIELDS, INTEGERS

ROWS = 100
LONGEST = 2**20
"""Bytes that a row may have; Criteo's have less than 400."""
_SHOWN = 60


def check_first_rows(path: Path) -> None:
    """Check that a file begins like a log in Criteo's format, plain or gzipped.

    A malformed row among many is left out and counted later. A file whose first row is malformed, or most of its first
    `ROWS`, is of another format.

    Raises:
        DataError: it is, with the line that shows it; or it is empty or cannot be read.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            lines = [line for _ in range(ROWS) if (line := stream.readline(LONGEST + 1))]
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    if not lines:
        raise DataError(f"{path} is empty")
    faults = [(number, fault, line) for number, line in enumerate(lines, 1) if (fault := fault_in_row(line))]
    if faults and (faults[0][0] == 1 or 2 * len(faults) > len(lines)):
        number, fault, line = faults[0]
        raise DataError(
            f"{path} is not in Criteo's format, a label of 0 or 1, {INTEGERS} integers and {FIELDS - INTEGERS}"
            f" categories between tabs: line {number} {fault}: {_shown(line)}"
        )


def fault_in_row(line: bytes) -> str:
    """Say why a line is no row of the log, "" if it is one."""
    if len(line) > LONGEST:
        return f"has more than {LONGEST} bytes"
    cells = line.rstrip(b"\r\n").split(b"\t")
    if len(cells) != FIELDS + 1:
        return f"has {len(cells)} column{'s' * (len(cells) != 1)} instead of {FIELDS + 1}"
    if cells[0] not in (b"0", b"1"):
        return "has no label of 0 or 1"
    if not all(cell == b"" or cell.removeprefix(b"-").isdigit() for cell in cells[1 : INTEGERS + 1]):
        return "has a cell that is no integer"
    return ""


def _shown(line: bytes) -> str:
    text = ascii(line[:_SHOWN].decode(errors="replace").rstrip("\n"))
    return f"{text[:-1]}…'" if len(line) > _SHOWN else text
