"""Many runs on one machine: a few worker processes, each taking the next run."""

import multiprocessing
import os
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

from benchmarks.cli import describe, one_line
from benchmarks.config import Config, from_dict, identity, to_dict
from benchmarks.errors import SuiteError
from benchmarks.execute import execute
from benchmarks.footers import duration
from benchmarks.records import RunBusy

_ATTEMPTS = 3


@dataclass
class Problem:
    """A run that did not end as "done": its name, why, and its identity, since runs may share a name."""

    name: str
    reason: str
    run: str = field(default="", compare=False)


def run_all(configs: Sequence[Config], jobs: int) -> list[Problem]:
    """Carry out runs with `jobs` processes; a run that fails does not stop the others.

    A run that another process is at work on is put off to the end and then waited for. A worker that dies is
    replaced, and the run it was at is taken up again from its checkpoint, a limited number of times.

    Returns:
        What failed or diverged.
    """
    report = _Report(len(configs))
    if jobs <= 1 or len(configs) <= 1:
        busy = [config for config in configs if not report.take(config, _attempt(to_dict(config), False))]
        for config in busy:
            report.take(config, _attempt(to_dict(config), True))
        return report.problems
    busy = _in_pool(configs, jobs, report, wait_for_others=False)
    _in_pool(busy, jobs, report, wait_for_others=True)
    return report.problems


def run_name(config: Config) -> str:
    """A run in a few words, as in reports."""
    return f"{config.task.name} {config.model.name} {config.rule.name} seed {config.seed}"


def _in_pool(configs: Sequence[Config], jobs: int, report: "_Report", wait_for_others: bool) -> list[Config]:
    """Run in worker processes; returns those that another process holds."""
    queue = deque(configs)
    busy: list[Config] = []
    deaths: Counter[str] = Counter()
    workers = [_Worker() for _ in range(min(jobs, len(queue)))]
    try:
        while True:
            for index, worker in enumerate(workers):
                if worker.run is None and queue:
                    workers[index] = worker = worker if worker.process.is_alive() else _Worker()
                    worker.give(queue.popleft(), wait_for_others)
            at_work = {worker.channel: worker for worker in workers if worker.run is not None}
            if not at_work:
                return busy
            for channel in wait(list(at_work)):
                worker = at_work[channel]  # type: ignore[index]
                config, outcome = worker.take()
                if outcome is None:
                    deaths[identity(config)] += 1
                    if deaths[identity(config)] < _ATTEMPTS:
                        queue.append(config)
                    else:
                        report.take(config, {"error": f"its worker process died {_ATTEMPTS} times (out of memory?)"})
                elif not report.take(config, outcome):
                    busy.append(config)
    finally:
        for worker in workers:
            worker.stop()


class _Worker:
    """A process that carries out one run after another."""

    def __init__(self) -> None:
        # A fresh process, not a fork: a fork would inherit the threads' locks of the parent.
        context = multiprocessing.get_context("spawn")
        self.channel, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs,))
        self.process.start()
        theirs.close()  # so that the end of the process is the end of the channel
        self.run: Config | None = None

    def give(self, config: Config, wait_for_others: bool) -> None:
        """Have a run carried out."""
        self.run = config
        self.channel.send((to_dict(config), wait_for_others))

    def take(self) -> tuple[Config, dict[str, Any] | None]:
        """The run given last and what came of it; None if the process died over it."""
        assert self.run is not None
        config, self.run = self.run, None
        try:
            return config, self.channel.recv()
        except (EOFError, OSError):
            self.process.join()
            return config, None

    def stop(self) -> None:
        """End the process, at once if it is at work."""
        self.channel.close()
        if self.run is not None:
            self.process.terminate()
        self.process.join()


def _serve(channel: Connection) -> None:
    """In a worker: take runs until the channel is closed."""
    try:
        while True:
            channel.send(_attempt(*channel.recv()))
    except (EOFError, OSError, KeyboardInterrupt):
        return


def _attempt(content: dict[str, Any], wait_for_others: bool) -> dict[str, Any]:
    """One run: its record, {"busy": True}, or {"error": line}."""
    try:
        return execute(from_dict(content), wait=wait_for_others)
    except RunBusy:
        return {"busy": True}
    except SuiteError as error:
        return {"error": one_line(error)}
    except Exception as error:  # one broken run must not stop the others
        return {"error": f"{type(error).__name__}: {one_line(error)}"}


class _Report:
    """One line for each finished run, with the time left."""

    def __init__(self, total: int) -> None:
        self.problems: list[Problem] = []
        self._total = total
        self._finished = 0
        self._began = time.monotonic()

    def take(self, config: Config, outcome: dict[str, Any]) -> bool:
        """Note an outcome; False if the run was busy."""
        if "busy" in outcome:
            return False
        self._finished += 1
        name = run_name(config)
        text = f"{name}: not run: {outcome['error']}" if "error" in outcome else describe(outcome)
        if outcome.get("status") != "done":
            self.problems.append(Problem(name, outcome.get("error") or outcome["reason"], identity(config)))
        elapsed = time.monotonic() - self._began
        left = elapsed / self._finished * (self._total - self._finished)
        seconds = f" in {outcome['seconds']:.1f} s" if "seconds" in outcome else ""
        print(f"[{self._finished}/{self._total}, {duration(left)} left] {text}{seconds}", flush=True)
        return True


def default_jobs() -> int:
    """One worker for each core this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
