"""Speed of preprocessing and reading a click log, compared with the cache builder of the `torchfm` package."""

import os
import tempfile
import time
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from benchmarks.families.recommenders.criteo.blocks import TextSource
from benchmarks.families.recommenders.criteo.cache import open_cache, prepare, read_manifest
from benchmarks.families.recommenders.data import batches, epoch_order, random_split
from benchmarks.families.recommenders.stand_in import ClickModel, write_text_log
from benchmarks.speed.measure import Measurement, measure_in_subprocess


def bench_logs(rows: int, vocabulary: int, scratch: Path | None = None, torchfm: bool = True) -> Measurement:
    """Generate a log, preprocess it, read it in shuffled batches, and preprocess it with `torchfm`.

    Args:
        rows: length of the log.
        vocabulary: values of each large field (250,000 give about a million distinct values in 20 M rows).
        scratch: folder for temporary files, about 600 bytes a row; None for the system's temporary folder.
        torchfm: whether to run `torchfm` too, if it is installed.

    Returns:
        For each part `rows`, times and memory (see `measure`), rows per second and rows per CPU second; `speedup` and
        `speedup_cpu` are the ratios of these two to those of `torchfm`.

    Raises:
        ResultsError: the process of a part was killed.
    """
    with tempfile.TemporaryDirectory(prefix="click-bench-", dir=scratch) as folder:
        text, cache = Path(folder) / "train.txt", Path(folder) / "cache"
        found: Measurement = {"rows": rows, "generate": _with_speed(partial(_generate, rows, vocabulary, text))}
        found["text_bytes"] = text.stat().st_size
        found["preprocess"] = ours = _with_speed(partial(_preprocess, text, cache))
        found["read"] = _with_speed(partial(_read, text, cache))
        if torchfm and find_spec("torchfm") is not None and find_spec("lmdb") is not None:
            found["torchfm"] = theirs = _with_speed(partial(_torchfm, text, Path(folder) / "lmdb"))
            found["speedup"] = ours["rows_per_second"] / theirs["rows_per_second"]
            found["speedup_cpu"] = ours["rows_per_cpu_second"] / theirs["rows_per_cpu_second"]
            found["same_field_sizes"] = ours["field_sizes"] == theirs["field_sizes"]
    return found


def _with_speed(work: partial[Measurement]) -> Measurement:
    found = measure_in_subprocess(work, work.func.__name__.strip("_"))
    seconds, cpu = (found.pop(f"loop_{key}", found[key]) for key in ("seconds", "cpu_seconds"))
    return {**found, "rows_per_second": found["rows"] / seconds, "rows_per_cpu_second": found["rows"] / cpu}


def _generate(rows: int, vocabulary: int, text: Path) -> Measurement:
    write_text_log(ClickModel(0, vocabulary), rows, text)
    return {"rows": rows}


def _preprocess(text: Path, cache: Path) -> Measurement:
    folder = prepare(TextSource(text), cache)
    manifest = read_manifest(folder)
    return {
        "rows": manifest.rows,
        "distinct_values": manifest.distinct_values,
        "cache_bytes": sum(path.stat().st_size for path in folder.iterdir()),
        "field_sizes": manifest.field_sizes,
    }


def _read(text: Path, cache: Path, batch_size: int = 2048) -> Measurement:
    torch.set_num_threads(1)
    log = open_cache(prepare(TextSource(text), cache))
    order = epoch_order(random_split(len(log)).train, seed=0, epoch=1, shuffle=True)
    started, cpu = time.perf_counter(), time.process_time()
    seen = sum(len(labels) for _, labels in batches(log, order, batch_size))
    loops = {"loop_seconds": time.perf_counter() - started, "loop_cpu_seconds": time.process_time() - cpu}
    return {"rows": seen, "batch_size": batch_size, **loops}


def _torchfm(text: Path, cache: Path) -> Measurement:
    os.environ["TQDM_DISABLE"] = "1"  # its progress bars cost little, but fill a log
    built = import_module("torchfm.dataset.criteo").CriteoDataset(str(text), str(cache))
    return {"rows": len(built), "field_sizes": np.asarray(built.field_dims).astype(int).tolist()}
