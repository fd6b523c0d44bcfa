"""Work in a process of its own, so that its peak memory is its own."""

import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from functools import partial
from typing import Any, TypeVar

import psutil
import torch

from benchmarks.environment import PeakMemory
from benchmarks.errors import ResultsError

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
