"""Download of public files from mirrors, with a checksum and an atomic write."""

import hashlib
import http.client
import os
import sys
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, TypeVar

from rich.progress import Progress

from benchmarks.errors import DataError
from benchmarks.utils.files import atomic_path

BLOCK_BYTES = 1 << 20
TIMEOUT_SECONDS = 60.0

Answer = TypeVar("Answer")


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def offline() -> bool:
    """Return whether the environment variable DFA_OFFLINE forbids network access."""
    return os.environ.get("DFA_OFFLINE", "").lower() not in ("", "0", "false", "no")


def fetch(urls: Sequence[str], target: Path, sha256: str | None) -> Path:
    """Download `target` from the first mirror that delivers the complete, unaltered file.

    A mirror that fails is reported on stderr and the next one is tried. `target` is written atomically, after its
    length and checksum have been verified.

    Args:
        urls: addresses of the file (http or https), tried in order.
        target: path to write.
        sha256: expected SHA-256 in hexadecimal; None accepts any complete file, which must then never be unpickled.

    Returns:
        `target`.

    Raises:
        DataError: every mirror failed (the message lists the reasons), DFA_OFFLINE is set, or `target` cannot be
            written.
    """
    if offline():
        raise DataError(f"{target.name} is missing and DFA_OFFLINE forbids the download; place it at {target}")
    failures: list[str] = []
    for url in urls:
        try:
            with atomic_path(target) as temporary:
                _download(url, temporary)
                found = sha256_of(temporary)
                if sha256 is not None and found != sha256:
                    raise _MirrorError(f"sha256 is {found}, expected {sha256}")
            return target
        except _MirrorError as error:
            failures.append(f"{url}: {error}")
            print(f"mirror failed: {failures[-1]}", file=sys.stderr)
        except OSError as error:
            raise DataError(f"cannot write {target}: {error}") from error
    raise DataError(f"could not download {target.name} from any of {len(urls)} mirrors: {'; '.join(failures)}")


class _MirrorError(Exception):
    """Failure of a mirror: unreachable, connection lost, or another file than expected."""


def _network(request: Callable[[], Answer]) -> Answer:
    """Call `request`; raise network failures as _MirrorError, to tell them from errors of the local disk."""
    try:
        return request()
    except (OSError, http.client.HTTPException) as error:
        raise _MirrorError(str(error) or type(error).__name__) from error


def _download(url: str, target: Path) -> None:
    if not url.startswith(("http://", "https://")):
        raise _MirrorError("not an http(s) address")
    request = urllib.request.Request(url, headers={"User-Agent": "dfa-benchmarks"})
    with (
        _network(lambda: urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)) as response,
        target.open("wb") as out,
    ):
        length = response.headers.get("Content-Length")
        _copy(response, out, target.name, int(length) if length else None)


def _copy(response: IO[bytes], out: IO[bytes], name: str, length: int | None) -> None:
    """Copy with a progress bar; check the length, because `http.client` accepts a truncated body."""
    received = 0
    with Progress(transient=True, disable=not sys.stderr.isatty()) as progress:
        bar = progress.add_task(name.strip("."), total=length)
        while block := _network(lambda: response.read(BLOCK_BYTES)):
            out.write(block)
            received += len(block)
            progress.update(bar, completed=received)
    if length is not None and received != length:
        raise _MirrorError(f"connection lost after {received} of {length} bytes")
