"""Paths of the repository, its configurations and its cache folder."""

import os
import stat
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIG_DIR = REPOSITORY / "configs"
FAMILIES = REPOSITORY / "benchmarks" / "families"


def cache_dir() -> Path:
    """Return the cache folder: $DFA_CACHE_DIR, or ~/.cache/dfa-benchmarks."""
    return Path(os.environ.get("DFA_CACHE_DIR") or Path.home() / ".cache" / "dfa-benchmarks")


def writable(folder: Path) -> bool:
    """Return whether files may be created in `folder`, which is created if needed.

    A file is created on trial, since permission bits say nothing about read-only mounts. A folder without write
    permission counts as read-only even for root.
    """
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    if not existing.stat().st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH):
        return False
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
