"""How fast the click log is preprocessed and read, beside the cache builder of the `torchfm` package.

    python -m benchmarks.recommenders.bench --rows 2000000 --vocabulary 250000

Every measurement runs in a process of its own, so that its peak memory is its own. Prints one JSON object.
"""

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.recommenders.blocks import TextSource
from benchmarks.recommenders.cache import open_cache, prepare, read_manifest
from benchmarks.recommenders.data import batches, epoch_order, random_split
from benchmarks.recommenders.stand_in import ClickModel
from benchmarks.recommenders.stand_in_text import write_text_log

Measured = dict[str, Any]


def bench(rows: int, vocabulary: int, folder: Path, workers: int = 0, reference_rows: int | None = None) -> Measured:
    """Generate a log of `rows` rows in `folder`, preprocess it, read it, and do the same with `torchfm`.

    Args:
        rows: length of the log.
        vocabulary: values of each of its large fields (250,000: about a million distinct values in 20 M rows).
        folder: where log and caches go; about 600 bytes a row.
        workers: preprocessing threads; 0 = one per core.
        reference_rows: rows that `torchfm` gets, from the beginning of the log; None = all, 0 = it is not run.

    Returns:
        Times in seconds (`seconds` on the clock, `cpu_seconds` over all cores), rows per second and peak memory in
        bytes of every part; `speedup` compares rows per second on the clock, `speedup_cpu` per CPU second.
    """
    text = folder / "train.txt"
    found: Measured = {"rows": rows, "generate": _apart(partial(_generate, rows, vocabulary, text))}
    found["text_bytes"] = text.stat().st_size
    found["preprocess"] = ours = _apart(partial(_preprocess, text, folder / "cache", workers))
    found["read"] = _apart(partial(_read, Path(ours["folder"])))
    if reference_rows != 0 and find_spec("torchfm") is not None and find_spec("lmdb") is not None:
        count = rows if reference_rows is None else min(rows, reference_rows)
        part = text if count == rows else _beginning(text, count)
        found["torchfm"] = theirs = _apart(partial(_torchfm, part, folder / "lmdb"))
        found["speedup"] = ours["rows_per_second"] / theirs["rows_per_second"]
        found["speedup_cpu"] = (rows / ours["cpu_seconds"]) / (count / theirs["cpu_seconds"])
        found["same_field_sizes"] = theirs["field_sizes"] == ours["field_sizes"] if count == rows else None
    return found


def _generate(rows: int, vocabulary: int, text: Path) -> Measured:
    write_text_log(ClickModel(0, vocabulary), rows, text)
    return {"rows": rows}


def _preprocess(text: Path, root: Path, workers: int) -> Measured:
    folder = prepare(TextSource(text), root, workers=workers)
    manifest = read_manifest(folder)
    size = sum(path.stat().st_size for path in folder.iterdir())
    return {
        "rows": manifest.rows,
        "folder": str(folder),
        "cache_bytes": size,
        "field_sizes": manifest.field_sizes,
    }


def _read(folder: Path, batch_size: int = 2048) -> Measured:
    import torch

    torch.set_num_threads(1)
    log = open_cache(folder)
    order = epoch_order(random_split(len(log)).train, seed=0, epoch=1, shuffle=True)
    started = time.perf_counter()
    seen = sum(len(labels) for _, labels in batches(log, order, batch_size))
    return {"rows": seen, "batch_size": batch_size, "loop_seconds": time.perf_counter() - started}


def _torchfm(text: Path, cache: Path) -> Measured:
    built = import_module("torchfm.dataset.criteo").CriteoDataset(str(text), str(cache))
    return {"rows": len(built), "field_sizes": np.asarray(built.field_dims).astype(int).tolist()}


def _beginning(text: Path, rows: int) -> Path:
    part = text.with_name(f"train_{rows}.txt")
    with text.open("rb") as source, part.open("wb") as target:
        for _ in range(rows):
            target.write(source.readline())
    return part


def _apart(work: Callable[[], Measured]) -> Measured:
    """The result of `work` in a fresh process, with its times, speed and peak memory."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_measured, (work,))


def _measured(work: Callable[[], Measured]) -> Measured:
    before = resource.getrusage(resource.RUSAGE_SELF)
    started = time.perf_counter()
    result = work()
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        **result,
        "seconds": seconds,
        "cpu_seconds": cpu,
        "rows_per_second": result["rows"] / result.get("loop_seconds", seconds),
        "peak_memory_bytes": after.ru_maxrss * 1024,
        "imports_memory_bytes": before.ru_maxrss * 1024,
    }


def main() -> None:
    """Command line of `bench`."""
    parser = argparse.ArgumentParser(description=bench.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--vocabulary", type=int, default=250_000)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--reference-rows", type=int, default=None)
    parser.add_argument("--folder", type=Path, default=None, help="for the files; default: a temporary one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="click-bench-", dir=options.folder) as folder:
        found = bench(options.rows, options.vocabulary, Path(folder), options.workers, options.reference_rows)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
