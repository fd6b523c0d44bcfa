"""Training steps of one stage of a network, under PyTorch's schedules and under the rule's own."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

import torch
from torch import nn
from torch.distributed import ProcessGroup
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe

from benchmarks.config import Config
from benchmarks.run.optim import make_optimizer
from benchmarks.speed.pipeline import sleeping  # noqa: F401 - a network
from benchmarks.speed.workloads import Step, Workload, build_workload
from dfa import RULES
from dfa.pipeline import ScheduleFeedback, cut
from dfa.pipeline.timeline import Costs, predict

BASELINES: dict[str, Callable[..., Any]] = {"ScheduleGPipe": ScheduleGPipe, "Schedule1F1B": Schedule1F1B}
"""PyTorch's schedules, by their names there."""
ONE_PROCESS = "one_process"
EXECUTIONS: dict[str, dict[str, Any]] = {
    ONE_PROCESS: {},
    "recompute": {"memory": "recompute"},
    "recompute_parallel": {"memory": "recompute", "parallel": os.cpu_count() or 1},
}
"""Ways to carry out a step under the rule in one process, by options; with `parallel`, one thread for each part."""
CPU = torch.device("cpu")
_TIMED_PARTS = 7
"""Repetitions, after a first one, of which the median is taken."""


@dataclass(frozen=True)
class Setting:
    """What is measured: a network in stages.

    Attributes:
        entry: of `configs/bench/pipeline.yaml`, see `build_workload`.
        stages: processes, each with about as many of the network's layers.
        microbatches: numbers of micro-batches.
        rule: in the stages.
        threads: of each stage.
        rounds: turns of every contestant.
    """

    entry: dict[str, Any]
    stages: int
    microbatches: list[int]
    rule: str
    threads: int
    rounds: int

    def executions(self) -> list[str]:
        """Return the ways of `EXECUTIONS` in which one process is measured under the rule."""
        return [] if self.entry["network"] == "sleepers" else list(EXECUTIONS)

    def build(self) -> tuple[Workload, list[str]]:
        """Return the workload and the names of the modules at which it is cut."""
        workload = build_workload(self.entry, CPU)
        layers = list(dict(workload.model.named_children()))
        per_stage = len(layers) // self.stages  # the head goes to the last stage
        return workload, layers[per_stage::per_stage][: self.stages - 1]


def make_step_alone(setting: Setting, rule_name: str, execution: str) -> Step:
    """Return a training step of the whole network in this process, on all its threads."""
    workload, _ = setting.build()
    options = EXECUTIONS[execution]
    threads = torch.get_num_threads()
    wanted = 1 if "parallel" in options else threads
    torch.set_num_threads(wanted)
    rule = RULES.build(rule_name, workload.model, **workload.placement, **options)
    torch.set_num_threads(threads)

    def step() -> None:
        torch.set_num_threads(wanted)
        rule.backward(workload.loss(workload.model))
        workload.optimizer.step()
        workload.optimizer.zero_grad(set_to_none=True)
        torch.set_num_threads(threads)

    return step


def make_schedule_step(setting: Setting, schedule: str, microbatches: int, stage: int, group: ProcessGroup) -> Step:
    """Return a training step of one stage: all micro-batches, and then its optimiser.

    Args:
        setting: the network and the rule.
        schedule: of `BASELINES`, under backpropagation, or "feedback", under the rule.
        microbatches: number of them.
        stage: number of this stage, its rank in the group.
        group: of all stages.
    """
    workload, at = setting.build()
    rule = RULES.build(setting.rule, workload.model, **workload.placement) if schedule == "feedback" else None
    part = cut(workload.model, at, stage)
    wrapped = PipelineStage(part, stage, setting.stages, CPU, group=group)
    loss = nn.functional.mse_loss
    made = (
        BASELINES[schedule](wrapped, microbatches, loss)
        if rule is None
        else ScheduleFeedback(wrapped, microbatches, loss, rule)
    )
    optimizer = make_optimizer(Config().optimizer, part)
    assert workload.batch is not None
    x, target = workload.batch
    arguments, targets = [x] * (stage == 0), target if stage == setting.stages - 1 else None

    def step() -> None:
        made.step(*arguments, target=targets)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


@dataclass(frozen=True)
class StageTimes:
    """Seconds of a stage, an even share of those of the whole network.

    Attributes:
        costs: of one micro-batch.
        optimizer: of the optimiser's step.
    """

    costs: Costs
    optimizer: float

    def predict(self, schedule: str, microbatches: int, stages: int) -> float:
        """Return the predicted seconds of a training step under a schedule of `dfa.pipeline.timeline`."""
        return predict(schedule, microbatches, [self.costs] * stages).length + self.optimizer


def time_stage(setting: Setting, microbatches: int) -> StageTimes:
    """Time the parts of a step on one micro-batch of the whole network, in this process alone."""
    forward, backward, optimizer = _time_parts(setting, "bp", microbatches)
    _, own, _ = _time_parts(setting, setting.rule, microbatches)
    stages = setting.stages
    return StageTimes(Costs(forward / stages, backward / stages, own / stages), optimizer / stages)


def _time_parts(setting: Setting, rule_name: str, microbatches: int) -> tuple[float, float, float]:
    workload, _ = setting.build()
    rule = RULES.build(rule_name, workload.model, **workload.placement)
    assert workload.batch is not None
    x, target = (tensor.chunk(microbatches)[0] for tensor in workload.batch)
    found = []
    for _ in range(1 + min(setting.rounds, _TIMED_PARTS)):
        times = [time.perf_counter()]
        loss = nn.functional.mse_loss(workload.model(x), target)
        times.append(time.perf_counter())
        rule.backward(loss)
        times.append(time.perf_counter())
        workload.optimizer.step()
        workload.optimizer.zero_grad(set_to_none=True)
        times.append(time.perf_counter())
        found.append([end - start for start, end in pairwise(times)])
    forward, backward, optimizer = (median(part) for part in zip(*found[1:], strict=True))
    return forward, backward, optimizer
