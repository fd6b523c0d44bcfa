"""Overhead of the runner over a bare training loop, and cost of measuring alignment."""

import tempfile
import time
from collections.abc import Iterator
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.config import Config
from benchmarks.run.records import RunFolder
from benchmarks.run.trainer import Trainer
from benchmarks.run.wandb import WandbCopy
from benchmarks.speed.measure import time_steps
from benchmarks.speed.workloads import Step, Workload, build_workload, make_step
from benchmarks.task import DataInfo, Task
from dfa import Backpropagation, DirectFeedbackAlignment, measure_alignment

Row = dict[str, Any]
NETWORK = {"inputs": 256, "widths": [256, 256, 256, 256], "outputs": 10, "rows": 2048}
"""Perceptron whose training step takes about 20 ms on one core."""


def bench_overhead(device: torch.device, steps: int) -> list[Row]:
    """Measure the two rows of `overhead.json`.

    Args:
        device: device to run on.
        steps: number of pairs of steps to compare.

    Returns:
        `runner`: time of a step in the runner over that of a bare loop; `alignment`: time of one measurement over that
        of a backpropagation step.
    """
    return [_runner(device, steps), _alignment(device, max(3, steps // 10))]


class Alternating(Task):
    """Task that times the runner's step on each batch and a bare step after it.

    Attributes:
        pairs: (runner, bare) seconds, one entry per batch.
    """

    metric = "loss"
    higher_is_better = False

    def __init__(self, workload: Workload, bare: Step, steps: int) -> None:
        self.info = DataInfo("bench", "stand-in")
        self._workload, self._bare, self._steps = workload, bare, steps
        self.pairs: list[tuple[float, float]] = []

    def model_options(self) -> dict[str, Any]:
        """Return no options: the model is built already."""
        return {}

    def steps_per_epoch(self) -> int:
        """Return the number of pairs."""
        return self._steps

    def train_batches(self, epoch: int, skip: int = 0) -> Iterator[None]:
        """Yield empty batches; the time until the next one is requested is the runner's."""
        for _ in range(self._steps):
            start = time.perf_counter()
            yield None
            middle = time.perf_counter()
            self._bare()
            self.pairs.append((middle - start, time.perf_counter() - middle))

    def loss(self, model: nn.Module, batch: None) -> Tensor:
        """Return the workload's loss on its fixed batch."""
        return self._workload.loss(model)

    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        """Return a constant: evaluation is not measured."""
        return {"loss": 0.0}


def _entry() -> dict[str, Any]:
    return {"network": "perceptron", "options": NETWORK}


def _runner(device: torch.device, steps: int) -> Row:
    bare = make_step(build_workload(_entry(), device), "bp")
    workload = build_workload(_entry(), device)
    task = Alternating(workload, bare, steps)
    config = Config()
    config.task.name = config.model.name = config.rule.name = "bench"
    config.run.wandb, config.run.progress = "disabled", True
    config.trainer.selection = "last"
    with tempfile.TemporaryDirectory() as folder:
        config.run.results_dir = folder
        run = RunFolder.of(config)
        with run.locked():
            rule = Backpropagation(workload.model)
            Trainer(config, task, workload.model, rule, run, device, WandbCopy(config, run)).fit()
    pairs = task.pairs[steps // 10 :]
    return {
        "what": "runner",
        "bare_ms": 1e3 * median(bare for _, bare in pairs),
        "ratio": median(ran / bare for ran, bare in pairs),
        "pairs": len(pairs),
    }


def _alignment(device: torch.device, pairs: int) -> Row:
    step = make_step(build_workload(_entry(), device), "bp")
    workload = build_workload(_entry(), device)
    rule = DirectFeedbackAlignment(workload.model, **workload.placement)

    def measure() -> None:
        measure_alignment(rule, lambda: workload.loss(workload.model))

    for warm in (step, measure):
        warm()
    found = [(time_steps(measure, 1, device), time_steps(step, 1, device)) for _ in range(pairs)]
    return {
        "what": "alignment",
        "bare_ms": 1e3 * median(bare.wall for _, bare in found),
        "ratio": median(measured.wall / bare.wall for measured, bare in found),
        "cpu_ratio": median(measured.cpu / bare.cpu for measured, bare in found),
        "pairs": pairs,
    }
