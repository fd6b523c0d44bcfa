"""Checksum of all that configurations are composed from."""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from hydra.core.config_store import ConfigStore

from benchmarks.utils.paths import config_folders

MOST_ENTRIES = 5000
"""Files and folders that are looked through; a folder given with `--config-dir` may hold anything."""

_VARIABLE = re.compile(rb"oc\.env: *(\w+)")


class TooMany(Exception):
    """The configuration folders hold more than is worth looking through."""


def config_checksum() -> str:
    """Return a sha256 of all configuration files with their places, and of the choices that code has stored.

    Raises:
        TooMany: it would take longer than composing anew.
    """
    digest = hashlib.sha256(repr(ConfigStore.instance().repo).encode())
    for place, content in _files():
        digest.update(f"\0{place}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def config_environment() -> Mapping[str, str | None]:
    """Return the environment variables that configuration files refer to, with their values.

    Raises:
        TooMany: see `config_checksum`.
    """
    names = {name.decode() for _, content in _files() for name in _VARIABLE.findall(content)}
    return {name: os.environ.get(name) for name in sorted(names)}


def _files() -> Iterator[tuple[str, bytes]]:
    """Yield the path and content of every configuration file, in a fixed order."""
    seen = 0
    for root in config_folders():
        for folder, folders, files in os.walk(root):
            folders.sort()
            seen += len(folders) + len(files)
            if seen > MOST_ENTRIES:
                raise TooMany
            for name in sorted(files):
                if name.endswith(".yaml"):
                    yield f"{folder}/{name}", Path(folder, name).read_bytes()
