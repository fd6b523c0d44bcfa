"""Atomic writes: a reader finds the old file or the complete new one."""

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.errors import ResultsError

_UNFINISHED = ".building-"
_MOST_BYTES = 256 * 2**20  # of a file that is read at once


def read_regular(path: Path, most_bytes: int = _MOST_BYTES) -> str:
    """Read a text file (UTF-8). A pipe or a device, which might never end, is refused, and so is a very large file.

    Raises:
        OSError: there is none, or it cannot be read.
        ValueError: it is no text.
    """
    check_regular(path, most_bytes)
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 text (byte {error.start})") from None


def check_regular(path: Path, most_bytes: int = _MOST_BYTES) -> None:
    """Check that a path is that of a file which can be read at once.

    Raises:
        OSError: it is not.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError("it is not a file" if not stat.S_ISDIR(status.st_mode) else "it is a folder")
    if status.st_size > most_bytes:
        raise OSError(f"it has {status.st_size / 1e6:.0f} MB")


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`; on success it replaces `target`, on an exception it is removed.

    The file is flushed to disk before the swap, so that a power cut leaves the old file or the new one.

    Raises:
        OSError: the folder cannot be written to (read-only or full).
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        # mkstemp files are private to their owner; results are meant to be shared like any other file.
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def unfinished_folder(root: Path) -> Iterator[Path]:
    """Yield an empty folder in `root`, which the caller renames once it is complete; otherwise it is removed.

    Folders that killed processes left behind are removed first, so the caller must hold a lock on `root`.

    Raises:
        OSError: `root` cannot be written to (missing, read-only or full).
    """
    for left in root.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(left)
    folder = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=root))
    try:
        folder.chmod(0o777 & ~_umask())  # mkdtemp folders are private to their owner
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_text(target: Path, text: str) -> None:
    """Atomically replace `target` by `text` (UTF-8)."""
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_result(target: Path, text: str) -> Path:
    """Atomically replace `target`, a result of a command, by `text`.

    Returns:
        `target`.

    Raises:
        ResultsError: the file cannot be written.
    """
    return write_results({target: text})[0]


def write_results(texts: Mapping[Path, str]) -> list[Path]:
    """Replace files that belong together, results of a command; if one cannot be written, none is replaced.

    Returns:
        The files.

    Raises:
        ResultsError: a file cannot be written.
    """
    target = None
    try:
        with ExitStack() as all_written:
            for target, text in texts.items():
                all_written.enter_context(atomic_path(target)).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ResultsError(f"cannot write {target}: {error.strerror or error}") from None
    return list(texts)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
