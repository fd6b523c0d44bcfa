"""Folders outside the project that the suite may write to."""

import os
import tempfile
from pathlib import Path


def cache_dir() -> Path:
    """Folder for what could not be put into a read-only data folder: $DFA_CACHE_DIR or ~/.cache/dfa-benchmarks."""
    return Path(os.environ.get("DFA_CACHE_DIR") or Path.home() / ".cache" / "dfa-benchmarks")


def writable(folder: Path) -> bool:
    """Whether a file can be created there; permission bits alone do not tell on read-only mounts."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
