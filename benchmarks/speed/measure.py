"""Time, memory and arithmetic of a training step."""

import multiprocessing
import os
import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any, TypeVar

import psutil
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.errors import ResultsError
from benchmarks.utils.machine import PeakMemory

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


Measured = dict[str, Any]
Result = TypeVar("Result")


def apart(work: Callable[[], Result], what: str) -> Result:
    """What `work` returns in a fresh process.

    Args:
        work: something that can be pickled.
        what: begins the message if that process is killed.

    Raises:
        ResultsError: the process was killed, for its memory perhaps.
    """
    # An executor, unlike a pool, notices when the process is killed for its memory.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(work).result()
        except BrokenExecutor:
            raise ResultsError(f"{what}: the process was killed, for its memory perhaps") from None


def measured_apart(work: Callable[[], Measured], what: str) -> Measured:
    """The same with times and memory beside what `work` returns, which may replace them.

    Added are `seconds` on the clock, `cpu_seconds` over all threads, `peak_memory_mb` of the process (10^6 bytes) and
    `imports_memory_mb`, what it held before the work began.

    Raises:
        ResultsError: like `apart`.
    """
    return apart(partial(measured, work), what)


def measured(work: Callable[[], Measured]) -> Measured:
    """The same in this process."""
    before = psutil.Process().memory_info().rss / 1e6
    memory = PeakMemory(torch.device("cpu"))
    started, cpu = time.perf_counter(), time.process_time()
    result = work()
    times = {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu}
    return {"imports_memory_mb": before, "peak_memory_mb": memory.megabytes(), **times, **result}
