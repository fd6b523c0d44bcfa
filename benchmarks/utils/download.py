"""Fetching public files: mirrors in turn, checksum before use, never half a file."""

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
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def offline() -> bool:
    """Whether the environment variable DFA_OFFLINE forbids the network."""
    return os.environ.get("DFA_OFFLINE", "").lower() not in ("", "0", "false", "no")


def fetch(urls: Sequence[str], target: Path, sha256: str | None) -> Path:
    """Download `target` from the first of the mirrors `urls` that delivers it whole and unaltered.

    A mirror that cannot be reached, breaks off, or delivers another file than `sha256` promises is reported and the
    next one tried; `target` appears only once its content is known to be right. With `sha256=None` any complete
    file is taken: never unpickle such a file.

    Returns:
        `target`.

    Raises:
        DataError: every mirror failed (the message says how), the network is switched off (DFA_OFFLINE), or the
            folder cannot be written to.
    """
    if offline():
        raise DataError(f"{target.name} would have to be downloaded, but DFA_OFFLINE forbids it; place it at {target}")
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
    """A mirror that cannot be reached, breaks off or answers with something else than the file."""


def _asked(ask: Callable[[], Answer]) -> Answer:
    """What a mirror answers; whatever goes wrong there is a _MirrorError, to tell it from a disk that is full."""
    try:
        return ask()
    except (OSError, http.client.HTTPException) as error:
        raise _MirrorError(str(error) or type(error).__name__) from error


def _download(url: str, target: Path) -> None:
    if not url.startswith(("http://", "https://")):
        raise _MirrorError("not an http(s) address")
    request = urllib.request.Request(url, headers={"User-Agent": "dfa-benchmarks"})
    with _asked(lambda: urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)) as response, target.open("wb") as out:
        length = response.headers.get("Content-Length")
        _copy(response, out, target.name, int(length) if length else None)


def _copy(response: IO[bytes], out: IO[bytes], name: str, length: int | None) -> None:
    """Copy with a progress bar; `http.client` does not complain of a body cut short, so the length is checked."""
    received = 0
    with Progress(transient=True, disable=not sys.stderr.isatty()) as progress:
        bar = progress.add_task(name.strip("."), total=length)
        while block := _asked(lambda: response.read(BLOCK_BYTES)):
            out.write(block)
            received += len(block)
            progress.update(bar, completed=received)
    if length is not None and received != length:
        raise _MirrorError(f"broke off after {received} of {length} bytes")
