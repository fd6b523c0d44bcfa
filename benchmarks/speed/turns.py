"""Timing of several candidates in turns, each in its own process.

Turns expose all candidates to the same load and temperature of the machine. Separate processes give each its own
allocator, so that none is slowed by memory that another has fragmented.
"""

import multiprocessing
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

import torch

from benchmarks.errors import SuiteError
from benchmarks.speed.measure import Timing, count_flops, peak_megabytes, time_steps
from benchmarks.speed.workloads import build_workload, make_step
from benchmarks.utils.machine import keep_freed_memory
from dfa import FeedbackError, PointError


@dataclass(frozen=True)
class Candidate:
    """Description of one workload under one rule, sent to a worker process.

    Attributes:
        entry: of `configs/bench/steps.yaml`, see `build_workload`.
        rule, mode: see `make_step`.
        device: e.g. "cpu".
        threads: of PyTorch in the worker.
    """

    entry: dict[str, Any]
    rule: str
    mode: str
    device: str
    threads: int


class CandidateFailed(Exception):
    """Failure of a candidate's process; the message says why."""


@contextmanager
def recording_failure(index: int, failures: dict[int, str]) -> Iterator[None]:
    """Catch `CandidateFailed` in this block and store its message under `failures[index]`."""
    try:
        yield
    except CandidateFailed as reason:
        failures[index] = str(reason)


class Worker:
    """Handle of a candidate's process, a context manager that ends the process.

    Attributes:
        warm_seconds: wall-clock seconds of a step after warm-up.

    Raises:
        CandidateFailed: the workload or its first steps failed.
    """

    def __init__(self, candidate: Candidate) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["benchmarks.speed.turns"])
        self.candidate = candidate
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, candidate), daemon=True)
        self._process.start()
        theirs.close()
        self.warm_seconds = float(self._reply())

    def __enter__(self) -> "Worker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()
        self._process.join(timeout=10)
        if self._process.is_alive():
            self._process.kill()

    def time_steps(self, count: int) -> Timing:
        """Time `count` steps in the process.

        Raises:
            CandidateFailed: a step failed or the process has ended.
        """
        return self._request(count)

    def resources(self) -> dict[str, float]:
        """Measure `peak_mb` (MB) and `flops` of one step; 0 FLOPs where they cannot be counted.

        Raises:
            CandidateFailed: like `time_steps`.
        """
        return self._request("resources")

    def _request(self, request: object) -> Any:
        with suppress(ConnectionError):  # the process has ended, which `_reply` reports
            self._connection.send(request)
        return self._reply()

    def _reply(self) -> Any:
        try:
            succeeded, reply = self._connection.recv()
        except (EOFError, ConnectionError):
            self._process.join(timeout=10)
            raise CandidateFailed(f"its process ended with code {self._process.exitcode}") from None
        if not succeeded:
            raise CandidateFailed(reply)
        return reply


def _serve(connection: Connection, candidate: Candidate) -> None:
    torch.set_num_threads(candidate.threads)
    keep_freed_memory()  # as in a training run
    device = torch.device(candidate.device)
    try:
        step = make_step(build_workload(candidate.entry, device), candidate.rule, candidate.mode)
        for _ in range(3):
            warm = time_steps(step, 1, device)
        connection.send((True, warm.wall))
        while True:
            request = connection.recv()
            if request == "resources":
                # The FLOP counter sees no operation inside compiled code.
                flops = count_flops(step) if candidate.mode in ("eager", "recompute") else 0
                connection.send((True, {"peak_mb": peak_megabytes(step, device), "flops": flops}))
            else:
                connection.send((True, time_steps(step, request, device)))
    except EOFError:
        return
    except (SuiteError, PointError, FeedbackError) as error:
        connection.send((False, str(error)))
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        connection.send((False, f"{type(error).__name__}: {error} ({frame.name}, line {frame.lineno})"))


def time_in_turns(
    workers: Mapping[int, Worker], rounds: int, seconds: float, failures: dict[int, str]
) -> dict[int, list[Timing]]:
    """Time all workers in rounds, about `seconds` each; the order within a round rotates.

    Args:
        workers: by index.
        rounds: timings of each worker.
        seconds: length of a timing; it has at least one step.
        failures: messages of workers that fail are added here.

    Returns:
        The timings of the workers that did not fail, by index.
    """
    counts = {index: max(1, round(seconds / max(1e-6, worker.warm_seconds))) for index, worker in workers.items()}
    timings: dict[int, list[Timing]] = {index: [] for index in workers}
    order = list(workers)
    for number in range(rounds):
        for offset in range(len(order)):
            index = order[(number + offset) % len(order)]
            if index not in failures:
                with recording_failure(index, failures):
                    timings[index].append(workers[index].time_steps(counts[index]))
    return {index: own for index, own in timings.items() if index not in failures}


def paired_ratios(timings: Sequence[Timing], reference: Sequence[Timing], of: Callable[[Timing], float]) -> list[float]:
    """Return the ratio of a quantity of two timings for each round, whose timings are close in time."""
    return [of(own) / of(other) for own, other in zip(timings, reference, strict=True)]
