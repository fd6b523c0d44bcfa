"""Contestants: each in a process of its own, taking turns, so that load and temperature fall on all alike.

A process of its own also gives each its own allocator: one whose heap another has cut up would be slowed by it.
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
from benchmarks.speed.measure import Turn, count_flops, peak_megabytes, time_turn
from benchmarks.speed.workloads import build_workload, make_step
from benchmarks.utils.machine import keep_freed_memory
from dfa import FeedbackError, PointError


@dataclass(frozen=True)
class Contestant:
    """One workload under one rule, as a worker process is told of it."""

    entry: dict[str, Any]
    rule: str
    mode: str
    device: str
    threads: int


class Withdrawn(Exception):
    """A contestant that cannot take part or go on, and why."""


@contextmanager
def excused(index: int, failures: dict[int, str]) -> Iterator[None]:
    """Let the contestant of this index withdraw; `failures` then says why."""
    try:
        yield
    except Withdrawn as reason:
        failures[index] = str(reason)


class Seat:
    """The process of a contestant, seen from outside. Use as a context manager.

    Attributes:
        first: seconds of a step, once warm.

    Raises:
        Withdrawn: it failed.
    """

    def __init__(self, contestant: Contestant) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["benchmarks.speed.turns"])
        self.contestant = contestant
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, contestant), daemon=True)
        self._process.start()
        theirs.close()
        self.first = float(self._answer())

    def __enter__(self) -> "Seat":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()
        self._process.join(timeout=10)
        if self._process.is_alive():
            self._process.kill()

    def turn(self, count: int) -> Turn:
        """Let it make `count` steps. Raises Withdrawn where it fails or its process has ended."""
        return self._ask(count)

    def facts(self) -> dict[str, float]:
        """Its `peak_mb` and `flops`. Raises Withdrawn like `turn`."""
        return self._ask("facts")

    def _ask(self, question: object) -> Any:
        with suppress(ConnectionError):  # the process has ended: there is no answer either
            self._connection.send(question)
        return self._answer()

    def _answer(self) -> Any:
        try:
            good, answer = self._connection.recv()
        except (EOFError, ConnectionError):
            self._process.join(timeout=10)
            raise Withdrawn(f"its process ended with code {self._process.exitcode}") from None
        if not good:
            raise Withdrawn(answer)
        return answer


def _serve(connection: Connection, contestant: Contestant) -> None:
    torch.set_num_threads(contestant.threads)
    keep_freed_memory()  # as in every run
    device = torch.device(contestant.device)
    try:
        step = make_step(build_workload(contestant.entry, device), contestant.rule, contestant.mode)
        for _ in range(3):
            warm = time_turn(step, 1, device)
        connection.send((True, warm.clock))
        while True:
            question = connection.recv()
            if question == "facts":
                # Compiled code hides its arithmetic, and a graph's memory is reserved before.
                flops = count_flops(step) if contestant.mode in ("eager", "recompute") else 0
                connection.send((True, {"peak_mb": peak_megabytes(step, device), "flops": flops}))
            else:
                connection.send((True, time_turn(step, question, device)))
    except EOFError:
        return
    except (SuiteError, PointError, FeedbackError) as error:
        connection.send((False, str(error)))
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        connection.send((False, f"{type(error).__name__}: {error} ({where.name}, line {where.lineno})"))


def take_turns(
    seats: Mapping[int, Seat], rounds: int, seconds: float, failures: dict[int, str]
) -> dict[int, list[Turn]]:
    """Rounds in which every seat has a turn of about `seconds`; the first of a round is another each time.

    Returns:
        The turns of those that had all of them; `failures` says why others withdrew.
    """
    counts = {index: max(1, round(seconds / max(1e-6, seat.first))) for index, seat in seats.items()}
    turns: dict[int, list[Turn]] = {index: [] for index in seats}
    order = list(seats)
    for number in range(rounds):
        for offset in range(len(order)):
            index = order[(number + offset) % len(order)]
            if index not in failures:
                with excused(index, failures):
                    turns[index].append(seats[index].turn(counts[index]))
    return {index: mine for index, mine in turns.items() if index not in failures}


def paired_ratios(turns: Sequence[Turn], reference: Sequence[Turn], of: Callable[[Turn], float]) -> list[float]:
    """Round by round, the ratio of a quantity of two turns that were taken one after the other."""
    return [of(mine) / of(theirs) for mine, theirs in zip(turns, reference, strict=True)]
