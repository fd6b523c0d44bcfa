"""Published data of the family: where Criteo's log and MovieLens lie, and what is missing."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.families.recommenders.movielens import RELEASES, find_movielens, missing_movielens
from benchmarks.registry import DATA_CHECKS, DATA_FILES

CRITEO_FILES = ("train.txt", "train.txt.gz")
CRITEO_SAMPLE = "train_8000.txt"  # a sample of the first rows


def missing_data(task: str, data_dir: Path) -> str:
    """Return why the real data of a task are not available, or ""; no file is read or fetched."""
    release = task.removeprefix("movielens_")
    if release in RELEASES:
        return missing_movielens(release, data_dir)
    return missing_criteo(data_dir) if task == "criteo" else ""


def data_files(task: str, data_dir: Path, options: Mapping[str, Any]) -> list[Path]:
    """List the files that a task's real data are read from; empty if they are missing."""
    release = task.removeprefix("movielens_")
    if release in RELEASES:
        known = [path] if (path := find_movielens(release, data_dir)) else []
    elif task == "criteo" and not options.get("hugging_face"):
        known = [data_dir / "criteo" / name for name in (*CRITEO_FILES, CRITEO_SAMPLE)]
    else:
        known = []
    return [path for path in known if path.is_file()][:1]


def missing_criteo(data_dir: Path) -> str:
    """Return why `data_dir` has no complete Criteo log, or ""."""
    folder = data_dir / "criteo"
    if any((folder / name).is_file() for name in CRITEO_FILES):
        return ""
    sample = f" (only the sample {CRITEO_SAMPLE} is)" if (folder / CRITEO_SAMPLE).is_file() else ""
    return (
        f"Criteo is not in {folder}{sample}; put train.txt or train.txt.gz of the Kaggle display-advertising challenge"
        " there, or set task.options.hugging_face to a copy on the hub, with run.download=true"
    )


for _name in ("criteo", "movielens_1m", "movielens_100k", "click_log"):
    DATA_CHECKS.register(_name)(partial(missing_data, _name))
    DATA_FILES.register(_name)(partial(data_files, _name))
