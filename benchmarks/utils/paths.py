"""Where things lie: the repository, its configurations, and folders that the suite may write to."""

import os
import stat
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIG_DIR = REPOSITORY / "configs"
FAMILIES = REPOSITORY / "benchmarks" / "families"


def cache_dir() -> Path:
    """Folder for what could not be put into a read-only data folder: $DFA_CACHE_DIR or ~/.cache/dfa-benchmarks."""
    return Path(os.environ.get("DFA_CACHE_DIR") or Path.home() / ".cache" / "dfa-benchmarks")


def writable(folder: Path) -> bool:
    """Whether a file can and may be created there.

    Permission bits alone do not tell on read-only mounts, so it is tried; but what is marked read-only is left alone,
    even by a user whom no mark stops.
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
