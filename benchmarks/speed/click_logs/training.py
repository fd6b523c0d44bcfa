"""Cost of training steps at the paper's scale, on random ids with the field sizes of the whole Criteo log."""

import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.config import compose_config, resolve
from benchmarks.errors import ResultsError
from benchmarks.families.recommenders.criteo.load import CRITEO_ROWS
from benchmarks.families.recommenders.data import Batch, ClickLog
from benchmarks.families.recommenders.task import ClickTask
from benchmarks.registry import TASKS
from benchmarks.run.execute import execute
from benchmarks.speed.measure import Measurement, measure_in_subprocess
from benchmarks.task import DataInfo
from benchmarks.utils.overrides import quoted

# Sizes of Criteo's 39 fields at min_count 10, as commonly reported: 1,086,810 values in all.
FIELD_SIZES = (
    49, 101, 126, 45, 223, 118, 84, 76, 95, 9, 30, 40, 75, 1458, 555, 193949, 138801, 306, 19, 11970, 634, 4, 42646,
    5178, 192773, 3175, 27, 11422, 181075, 11, 4654, 2032, 5, 189657, 18, 16, 59697, 86, 45571,
)  # fmt: skip
CELLS = [("fm", "bp"), *((m, r) for m in ("deepfm", "dcn", "autoint", "afn") for r in ("bp", "dfa", "shallow"))]


def bench_cells(steps: int = 20, device: str = "cpu") -> list[Measurement]:
    """Measure `steps` training steps of every cell at the paper's scale, each cell in its own process.

    Returns:
        For each cell `parameters`, medians of `seconds_per_step` and `cpu_seconds_per_step` (loading of batches
        included), `peak_memory_mb` (see `PeakMemory`), and `steps` and `hours` of a whole run without early stopping.

    Raises:
        ConfigError: unknown device.
        ResultsError: a cell failed or its process was killed.
    """
    return [
        measure_in_subprocess(partial(_cell, model, rule, steps, device), f"{model} {rule}") for model, rule in CELLS
    ]


def sized_log(rows: int, seed: int = 0) -> ClickLog:
    """Draw `rows` rows of random ids within `FIELD_SIZES`, small ids more often than large ones."""
    draw = np.random.default_rng(seed)
    ids = (np.asarray(FIELD_SIZES) * draw.random((rows, len(FIELD_SIZES))) ** 4).astype(np.int64)
    return ClickLog.from_ids(ids, (draw.random(rows) < 0.25).astype(np.uint8), FIELD_SIZES)


_timestamps: list[tuple[float, float]] = []  # wall-clock and CPU seconds at the beginning of every step


class _TimedTask(ClickTask):
    def train_batches(self, epoch: int, skip: int = 0) -> Iterator[Batch]:
        for batch in super().train_batches(epoch, skip):
            _timestamps.append((time.perf_counter(), time.process_time()))
            yield batch


@TASKS.register("criteo_sized")
def _sized_task(*, seed: int, source: str, data_dir: Path, download: bool, batch_size: int, rows: int) -> ClickTask:
    return _TimedTask(sized_log(rows, seed), DataInfo("criteo_sized", "stand-in"), seed, batch_size=batch_size)


def _cell(model: str, rule: str, steps: int, device: str) -> Measurement:
    with tempfile.TemporaryDirectory() as results:
        settings = [f"run.results_dir={quoted(results)}"]
        settings += ["run.wandb=disabled", "run.progress=false", f"run.device={device}"]
        config = resolve(compose_config(["task=criteo", f"model={model}", f"rule={rule}", "scale=paper", *settings]))
        batch_size = config.task.options["batch_size"]
        config.task.name, config.trainer.steps = "criteo_sized", steps
        config.task.options = {"batch_size": batch_size, "rows": int(steps * batch_size / 0.8) + 10}
        record = execute(config)
    if record["status"] != "done":
        raise ResultsError(f"{model} {rule}: {record['reason']}")
    per_step, cpu_per_step = np.median(np.diff(_timestamps, axis=0), axis=0)
    whole = int(CRITEO_ROWS * 0.8) // batch_size * config.trainer.epochs
    return {
        "model": model,
        "rule": rule,
        "device": record["device"],
        "batch_size": batch_size,
        "parameters": record["parameters"],
        "measured_steps": record["steps"],
        "seconds_per_step": float(per_step),
        "cpu_seconds_per_step": float(cpu_per_step),
        "peak_memory_mb": record["peak_memory_mb"],
        "steps": whole,
        "hours": whole * float(per_step) / 3600,
    }


def bench_optimizers(steps: int = 8, dim: int = 16, batch_size: int = 2048) -> list[Measurement]:
    """Measure seconds per step of the embedding table alone, look-up and gradient included, with three optimisers.

    SparseAdam is not equivalent to Adam: rows that a batch does not contain keep their moments and values, whereas
    Adam decays the moments and updates all rows.
    """
    torch.set_num_threads(1)
    adam = torch.optim.Adam
    optimizers: dict[str, tuple[Any, dict[str, bool], bool]] = {
        "Adam, fused": (adam, {"fused": True}, False),
        "Adam, foreach": (adam, {"foreach": True}, False),
        "SparseAdam": (torch.optim.SparseAdam, {}, True),
    }
    ids, _ = sized_log(batch_size).take(np.arange(batch_size))
    rows = ids + torch.tensor([0, *np.cumsum(FIELD_SIZES)[:-1]], dtype=torch.int32)
    best = dict.fromkeys(optimizers, float("inf"))
    tables = {}
    for name, (factory, options, sparse) in optimizers.items():
        table = torch.nn.Embedding(sum(FIELD_SIZES), dim, sparse=sparse)
        tables[name] = table, factory(table.parameters(), lr=1e-4, **options)
    for _ in range(steps):  # in turns, so that other load affects all alike; the quickest turn counts
        for name, (table, optimizer) in tables.items():
            started = time.perf_counter()
            optimizer.zero_grad(set_to_none=True)
            table(rows).square().sum().backward()
            optimizer.step()
            best[name] = min(best[name], time.perf_counter() - started)
    return [{"optimizer": name, "seconds_per_step": seconds} for name, seconds in best.items()]
