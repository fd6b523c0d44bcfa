"""Work measured in a process of its own, so that its peak memory is its own."""

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import psutil
import torch

from benchmarks.environment import PeakMemory

Measured = dict[str, Any]


def measured_apart(work: Callable[[], Measured]) -> Measured:
    """What `work` returns in a fresh process, with times and memory.

    Added are `seconds` on the clock, `cpu_seconds` over all threads, `peak_memory_mb` of the process (10^6 bytes) and
    `imports_memory_mb`, what it held before the work began.

    Raises:
        concurrent.futures.BrokenExecutor: the process was killed, for its memory perhaps.
    """
    # An executor, unlike a pool, notices when the process is killed for its memory.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_measured, work).result()


def _measured(work: Callable[[], Measured]) -> Measured:
    before = psutil.Process().memory_info().rss / 1e6
    memory = PeakMemory(torch.device("cpu"))
    started, cpu = time.perf_counter(), time.process_time()
    result = work()
    times = {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu}
    return {"imports_memory_mb": before, "peak_memory_mb": memory.megabytes(), **times, **result}
