"""Download of public files from mirrors, with a checksum and an atomic write."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import pooch
from requests import ConnectionError, RequestException

from benchmarks.errors import DataError
from benchmarks.utils.files import atomic_path

BLOCK_BYTES = 1 << 20
TIMEOUT_SECONDS = 60.0
HEADERS = {"User-Agent": "dfa-benchmarks", "Accept-Encoding": "identity"}  # files as they are stored


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    digest: str = pooch.file_hash(str(path), alg="sha256")
    return digest


def offline() -> bool:
    """Return whether the environment variable DFA_OFFLINE forbids network access."""
    return os.environ.get("DFA_OFFLINE", "").lower() not in ("", "0", "false", "no")


def fetch(urls: Sequence[str], target: Path, sha256: str | None) -> Path:
    """Download `target` from the first mirror that delivers the complete, unaltered file.

    If a mirror fails, the next one is tried; those that failed are reported on stderr once one has delivered. `target`
    is written atomically, after its length and checksum have been verified.

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
            # Pooch's own retrieve neither flushes the file to disk nor gives it the permissions of the umask.
            with atomic_path(target) as temporary:
                _download(url, temporary)
                found = sha256_of(temporary)
                if sha256 is not None and found != sha256:
                    raise RequestException(f"sha256 is {found}, expected {sha256}")
            for failure in failures:
                print(f"mirror failed: {failure}", file=sys.stderr)
            return target
        except RequestException as error:  # an OSError, too, but of the network
            failures.append(_failure(url, error))
        except OSError as error:
            raise DataError(f"cannot write {target}: {error}") from error
    raise DataError(
        f"could not download {target.name} from any of {len(urls)} mirrors: {'; '.join(dict.fromkeys(failures))};"
        f" try again, or place it at {target}"
    )


def _failure(url: str, error: RequestException) -> str:
    """Say in few words why a mirror did not deliver, above all that there is no network."""
    if isinstance(error, ConnectionError) and "Failed to resolve" in str(error):
        return f"no network (could not resolve {urlsplit(url).hostname})"
    return f"{url}: {error}"


def _download(url: str, target: Path) -> None:
    """Stream a file to `target` with a progress bar on a terminal; a truncated body is a RequestException."""
    download = pooch.HTTPDownloader(
        progressbar=sys.stderr.isatty(), chunk_size=BLOCK_BYTES, timeout=TIMEOUT_SECONDS, headers=HEADERS
    )
    download(url, str(target), None)
