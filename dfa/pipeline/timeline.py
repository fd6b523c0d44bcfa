"""When every stage of a pipeline does what: a model of schedules, from the times of their parts. Pure Python.

The schedules are GPipe (Huang et al., 2019), 1F1B (Narayanan et al., 2019, with a flush after each batch), the
zero-bubble schedule ZB-H1 (Qi et al., 2024), which puts off the gradients of weights to fill gaps, and "feedback",
that of `ScheduleFeedback`. All of them are synchronous: a batch is over before any stage begins the next one with its
updated parameters, so none computes with parameters that are out of date.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

Kind = Literal["forward", "backward", "weights"]
Task = tuple[Kind, int]
"""What a stage does, and for which micro-batch."""
SCHEDULES = ("gpipe", "1f1b", "zero_bubble", "feedback")


@dataclass(frozen=True)
class Costs:
    """Time that one stage takes for one micro-batch, in any unit.

    Attributes:
        forward: for its forward pass.
        backward: for its backward pass under backpropagation.
        own: for its backward part under feedback; None: as long as `backward`.
        weights: share of `backward` that computes gradients of weights, which "zero_bubble" puts off.
        send: for an activation or a gradient on its way to the neighbour.
        broadcast: for an error on its way to all stages.
    """

    forward: float = 1.0
    backward: float = 2.0
    own: float | None = None
    weights: float = 0.5
    send: float = 0.0
    broadcast: float = 0.0


@dataclass(frozen=True)
class Interval:
    """A task of a stage, from start to end."""

    stage: int
    kind: Kind
    microbatch: int
    start: float
    end: float


@dataclass(frozen=True)
class Timeline:
    """All intervals of one batch."""

    intervals: list[Interval]

    @cached_property
    def length(self) -> float:
        """Time from the start of the batch until the last stage to finish has finished."""
        return max(interval.end for interval in self.intervals)

    def idle(self, stages: int) -> float:
        """Share of the time that the stages wait."""
        busy = sum(interval.end - interval.start for interval in self.intervals)
        return 1 - busy / (stages * self.length)


def predict(schedule: str, microbatches: int, costs: Sequence[Costs]) -> Timeline:
    """Return the timeline of one batch.

    Args:
        schedule: of `SCHEDULES`.
        microbatches: that the batch is cut into.
        costs: of each stage, in order.

    Raises:
        ValueError: an unknown schedule, or no stages or micro-batches.
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"unknown schedule '{schedule}'; known: {', '.join(SCHEDULES)}")
    if not costs or microbatches < 1:
        raise ValueError("a pipeline needs at least one stage and one micro-batch")
    waiting = [deque(_order(schedule, microbatches, stage, len(costs))) for stage in range(len(costs))]
    free = [0.0] * len(costs)
    ends: dict[tuple[int, Task], float] = {}
    intervals: list[Interval] = []
    while any(waiting):
        for stage, tasks in enumerate(waiting):
            while tasks:
                ready = _ready(schedule, stage, tasks[0], costs, ends)
                if ready is None:
                    break
                task = tasks.popleft()
                start = max(free[stage], ready)
                free[stage] = ends[stage, task] = start + _duration(schedule, task, costs[stage])
                intervals.append(Interval(stage, *task, start, free[stage]))
    return Timeline(intervals)


def _order(schedule: str, microbatches: int, stage: int, stages: int) -> Iterator[Task]:
    """Tasks of a stage, in the order in which it takes them up."""
    ahead = microbatches if schedule == "gpipe" else min(microbatches, stages - stage)
    for index in range(ahead):
        yield "forward", index
    for index in range(microbatches):
        yield "backward", index
        if schedule == "zero_bubble" and index >= stage:
            yield "weights", index - stage
        if index + ahead < microbatches:
            yield "forward", index + ahead
    if schedule == "zero_bubble":
        for index in range(max(0, microbatches - stage), microbatches):
            yield "weights", index


def _ready(
    schedule: str, stage: int, task: Task, costs: Sequence[Costs], ends: Mapping[tuple[int, Task], float]
) -> float | None:
    """Return when what a task needs of other stages is there; None: not known yet."""
    kind, index = task
    last = len(costs) - 1
    if kind == "forward":
        source, delay = (stage - 1, costs[stage - 1].send) if stage else (None, 0.0)
    elif kind == "weights" or stage == last:
        source, delay = None, 0.0
    elif schedule == "feedback":
        source, delay = last, costs[last].broadcast
    else:
        source, delay = stage + 1, costs[stage + 1].send
    if source is None:
        return 0.0
    needed: Task = ("forward", index) if kind == "forward" or schedule == "feedback" else ("backward", index)
    end = ends.get((source, needed))
    return None if end is None else end + delay


def _duration(schedule: str, task: Task, costs: Costs) -> float:
    kind, _ = task
    if kind == "forward":
        return costs.forward
    if schedule == "feedback":
        return costs.backward if costs.own is None else costs.own
    if schedule == "zero_bubble":
        return costs.backward * (costs.weights if kind == "weights" else 1 - costs.weights)
    return costs.backward
