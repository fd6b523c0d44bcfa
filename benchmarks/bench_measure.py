"""Time, memory and arithmetic of a training step."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # the profiler reports its start and stop otherwise
Step = Callable[[], None]


@dataclass(frozen=True)
class Turn:
    """Seconds a step took on the clock and on the processor, as a mean over the steps of one turn."""

    clock: float
    processor: float


def time_turn(step: Step, count: int, device: torch.device) -> Turn:
    """Time `count` steps in a row; on a GPU by its own events."""
    if device.type == "cuda":
        began, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize(device)
        processor = time.process_time()
        began.record()
        for _ in range(count):
            step()
        ended.record()
        torch.cuda.synchronize(device)
        return Turn(began.elapsed_time(ended) / 1e3 / count, (time.process_time() - processor) / count)
    processor, clock = time.process_time(), time.perf_counter()
    for _ in range(count):
        step()
    return Turn((time.perf_counter() - clock) / count, (time.process_time() - processor) / count)


def peak_megabytes(step: Step, device: torch.device) -> float:
    """Most memory that a step held beyond what was allocated before it, in MB (10⁶ bytes)."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        step()
        torch.cuda.synchronize(device)
        return (torch.cuda.max_memory_allocated(device) - before) / 1e6
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    assert profiler.profiler is not None and profiler.profiler.kineto_results is not None
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns()))
    return max(held, default=0) / 1e6


def count_flops(step: Step) -> int:
    """Floating-point operations of the matrix products of a step; sparse and element-wise ones are not counted."""
    with FlopCounterMode(display=False) as counter:
        step()
    return int(counter.get_total_flops())
