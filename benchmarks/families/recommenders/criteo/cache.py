"""Cache of preprocessed logs: folders of memory-mapped arrays with a manifest, which appear complete or not at all."""

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from benchmarks.errors import DataError
from benchmarks.families.recommenders.criteo.blocks import Source, TextSource
from benchmarks.families.recommenders.criteo.preprocess import check_malformed, count_values, ids_file, write_ids
from benchmarks.families.recommenders.data import ClickLog, storage_groups
from benchmarks.utils.files import unfinished_folder, write_text

VERSION = 1


@dataclass(frozen=True)
class Manifest:
    """Description of a cache.

    Attributes:
        source: name of the file or data set.
        sha256: checksum of the source.
        min_count: values that occur less often share their field's rare id.
        field_sizes: number of ids of each field, the rare id included.
        distinct_values: number of distinct values of all fields, rare ones included.
        rows: number of well-formed rows.
        malformed: number of rows left out.
        version: version of the cache's layout.
    """

    source: str
    sha256: str
    min_count: int
    field_sizes: list[int]
    distinct_values: int
    rows: int
    malformed: int
    version: int = VERSION


def prepare(source: Source, root: Path, min_count: int = 10, max_malformed: float = 0.001, workers: int = 0) -> Path:
    """Return the folder with the cache of `source`, which is built if it does not exist.

    The folder's name derives from the checksum of the source and the options. The checksum of a text file is computed
    again only if its size or modification time has changed. A lock excludes concurrent builds.

    Args:
        source: the log.
        root: folder of all caches.
        min_count, max_malformed, workers: see `count_values`.

    Raises:
        ConfigError: an option is out of range.
        DataError: the source is unreadable or has too many malformed rows, or `root` is not writable.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / ".lock"):
            known = _remembered_checksum(source, root)
            folder = root / _folder_name(known, min_count) if known else None
            if folder is None or not folder.is_dir():
                folder = _build(source, root, min_count, max_malformed, workers)
    except OSError as error:
        raise DataError(
            f"the cache under {root} cannot be written: {error}; set DFA_CACHE_DIR to a writable folder"
        ) from error
    manifest = read_manifest(folder)
    check_malformed(manifest.source, manifest.rows, manifest.malformed, max_malformed)
    return folder


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a cache.

    Raises:
        DataError: it is missing or damaged.
    """
    try:
        content: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        return Manifest(**content)
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{folder} is not a cache of a click log ({error}); delete it to rebuild it") from None


def open_cache(folder: Path) -> ClickLog:
    """Open a cache as a memory-mapped log.

    Raises:
        DataError: a file is missing or does not match the manifest.
    """
    manifest = read_manifest(folder)
    try:
        labels = np.load(folder / "labels.npy", mmap_mode="r")
        groups = tuple(
            (columns, np.load(folder / ids_file(dtype), mmap_mode="r"))
            for dtype, columns in storage_groups(manifest.field_sizes)
        )
    except (OSError, ValueError) as error:
        raise DataError(f"the cache {folder} is damaged ({error}); delete it to rebuild it") from None
    shapes = [(array.shape, (manifest.rows, len(columns))) for columns, array in groups]
    if labels.shape != (manifest.rows,) or any(found != expected for found, expected in shapes):
        raise DataError(f"the cache {folder} does not match its manifest; delete it to rebuild it")
    return ClickLog(groups, labels, tuple(manifest.field_sizes))


def _build(source: Source, root: Path, min_count: int, max_malformed: float, workers: int) -> Path:
    with unfinished_folder(root) as building:
        spill = building / "spill"
        spill.mkdir()
        counts = count_values(source, spill, min_count, max_malformed, workers)
        checksum = source.checksum()
        target = root / _folder_name(checksum, min_count)
        if not target.is_dir():
            write_ids(counts, building, spill, workers)
            shutil.rmtree(spill)
            sizes = [vocabulary.size for vocabulary in counts.vocabularies]
            rows, malformed = sum(counts.rows), counts.malformed
            manifest = Manifest(source.name, checksum, min_count, sizes, counts.distinct, rows, malformed)
            write_text(building / "manifest.json", json.dumps(asdict(manifest), indent=2) + "\n")
            building.rename(target)
    if isinstance(source, TextSource):
        write_text(_memo(source, root), json.dumps({**_stamp(source), "sha256": checksum}) + "\n")
    return target


def _folder_name(checksum: str, min_count: int) -> str:
    options = json.dumps({"sha256": checksum, "min_count": min_count, "version": VERSION}, sort_keys=True)
    return "log-" + hashlib.sha256(options.encode()).hexdigest()[:16]


def _remembered_checksum(source: Source, root: Path) -> str | None:
    if not isinstance(source, TextSource):
        return source.checksum() or None
    try:
        memo: dict[str, Any] = json.loads(_memo(source, root).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    checksum = memo.pop("sha256", None)
    return checksum if memo == _stamp(source) else None


def _memo(source: TextSource, root: Path) -> Path:
    return root / f"checksum-{hashlib.sha256(str(source.path.resolve()).encode()).hexdigest()[:16]}.json"


def _stamp(source: TextSource) -> dict[str, int]:
    status = source.path.stat()
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns}
