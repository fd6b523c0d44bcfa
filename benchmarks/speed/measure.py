"""Time, memory and floating-point operations of a training step, or of any work in a process of its own."""

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

os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # silences the profiler's start and stop messages

Step = Callable[[], None]
Measurement = dict[str, Any]
Result = TypeVar("Result")


@dataclass(frozen=True)
class Timing:
    """Mean seconds of a step.

    Attributes:
        wall: wall-clock time.
        cpu: CPU time of this process, over all threads.
    """

    wall: float
    cpu: float


def time_steps(step: Step, count: int, device: torch.device) -> Timing:
    """Time `count` consecutive steps; the wall-clock time of a GPU is taken from CUDA events."""
    if device.type == "cuda":
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        stream = torch.cuda.current_stream(device)  # by default events are those of the current device
        torch.cuda.synchronize(device)
        cpu = time.process_time()
        start.record(stream)
        for _ in range(count):
            step()
        end.record(stream)
        torch.cuda.synchronize(device)
        return Timing(start.elapsed_time(end) / 1e3 / count, (time.process_time() - cpu) / count)
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(count):
        step()
    return Timing((time.perf_counter() - wall) / count, (time.process_time() - cpu) / count)


def seconds_of(step: Step, device: torch.device) -> float:
    """Return the CPU seconds of a step, which other processes do not disturb; on a GPU its wall-clock seconds."""
    timing = time_steps(step, 1, device)
    return timing.cpu if device.type == "cpu" else timing.wall


def peak_megabytes(step: Step, device: torch.device) -> float:
    """Return the peak memory of a step beyond what was allocated before it, in MB (10⁶ bytes)."""
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
    """Count the floating-point operations of a step's dense matrix products; other operations are not counted."""
    with FlopCounterMode(display=False) as counter:
        step()
    return int(counter.get_total_flops())


def in_subprocess(work: Callable[[], Result], what: str) -> Result:
    """Run `work` in a new process and return its result.

    Args:
        work: function that can be pickled.
        what: label of the work in the error message.

    Raises:
        ResultsError: the process was killed, perhaps for lack of memory.
    """
    # Unlike multiprocessing.Pool, an executor notices that its process was killed.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(work).result()
        except BrokenExecutor:
            raise ResultsError(f"{what}: the process was killed, perhaps for lack of memory") from None


def measure_in_subprocess(work: Callable[[], Measurement], what: str) -> Measurement:
    """Run `work` in a new process and measure it, see `measure`.

    Raises:
        ResultsError: like `in_subprocess`.
    """
    return in_subprocess(partial(measure, work), what)


def measure(work: Callable[[], Measurement]) -> Measurement:
    """Run `work` in this process and add its costs to the dictionary that it returns.

    Returns:
        `seconds` (wall clock), `cpu_seconds` (over all threads), `peak_memory_mb` of the process and
        `imports_memory_mb` before the work began (both in MB, 10⁶ bytes), and the entries that `work` returns, which
        take precedence.
    """
    before = psutil.Process().memory_info().rss / 1e6
    memory = PeakMemory(torch.device("cpu"))
    started, cpu = time.perf_counter(), time.process_time()
    result = work()
    times = {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu}
    return {"imports_memory_mb": before, "peak_memory_mb": memory.megabytes(), **times, **result}
