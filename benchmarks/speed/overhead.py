"""What the runner adds to a bare training loop, and what measuring alignment costs."""

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
from benchmarks.speed.measure import time_turn
from benchmarks.speed.workloads import Step, Workload, build_workload, make_step
from benchmarks.task import DataInfo, Task
from dfa import Backpropagation, DirectFeedbackAlignment, measure_alignment

Row = dict[str, Any]
NETWORK = {"inputs": 256, "widths": [256, 256, 256, 256], "outputs": 10, "rows": 2048}
"""About 20 ms a step on one core."""


def bench_overhead(device: torch.device, steps: int) -> list[Row]:
    """Rows of `overhead.json`: `runner` (its step over a bare one) and `alignment` (over a step of backpropagation).

    Args:
        device: where to run.
        steps: pairs of steps that are compared.
    """
    return [_runner(device, steps), _alignment(device, max(3, steps // 10))]


class Alternating(Task):
    """Batches for the runner; between two of them, a bare step is made and both are timed."""

    metric = "loss"
    higher_is_better = False

    def __init__(self, workload: Workload, bare: Step, steps: int) -> None:
        self.info = DataInfo("bench", "stand-in")
        self._workload, self._bare, self._steps = workload, bare, steps
        self.pairs: list[tuple[float, float]] = []

    def model_options(self) -> dict[str, Any]:
        return {}

    def steps_per_epoch(self) -> int:
        return self._steps

    def train_batches(self, epoch: int, skip: int = 0) -> Iterator[None]:
        for _ in range(self._steps):
            began = time.perf_counter()
            yield None
            ran = time.perf_counter()
            self._bare()
            self.pairs.append((ran - began, time.perf_counter() - ran))

    def loss(self, model: nn.Module, batch: None) -> Tensor:
        return self._workload.loss(model)

    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
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
    found = [(time_turn(measure, 1, device), time_turn(step, 1, device)) for _ in range(pairs)]
    return {
        "what": "alignment",
        "bare_ms": 1e3 * median(bare.clock for _, bare in found),
        "ratio": median(measured.clock / bare.clock for measured, bare in found),
        "cpu_ratio": median(measured.processor / bare.processor for measured, bare in found),
        "pairs": pairs,
    }
