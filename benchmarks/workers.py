"""Many runs on one machine: a few worker processes, each taking the next run."""

import multiprocessing
import os
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

from benchmarks.cli import describe, one_line
from benchmarks.config import Config, from_dict, to_dict
from benchmarks.errors import SuiteError
from benchmarks.execute import execute
from benchmarks.footers import duration
from benchmarks.records import RunBusy

_ATTEMPTS = 3


@dataclass
class Problem:
    """A run that did not end as "done": its name, and why."""

    name: str
    reason: str


def run_all(configs: Sequence[Config], jobs: int) -> list[Problem]:
    """Carry out runs with `jobs` processes; a run that fails does not stop the others.

    A run that another process is at work on is put off to the end and then waited for. A worker that dies is
    replaced, and what it was at is taken up again from its checkpoint, a limited number of times.

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


def _in_pool(configs: Sequence[Config], jobs: int, report: "_Report", wait_for_others: bool) -> list[Config]:
    """Run in worker processes; returns those that another process holds."""
    busy: list[Config] = []
    queue = list(configs)
    attempts = 0
    while queue:
        attempts += 1
        survivors: list[Config] = []
        # Fresh processes, not forks: a fork would inherit the threads' locks of the parent.
        with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
            pending: dict[Future[Any], Config] = {
                pool.submit(_attempt, to_dict(config), wait_for_others): config for config in queue
            }
            try:
                while pending:
                    for future in wait(pending, return_when=FIRST_COMPLETED).done:
                        config = pending.pop(future)
                        try:
                            if not report.take(config, future.result()):
                                busy.append(config)
                        except BrokenProcessPool:
                            survivors.append(config)
            except KeyboardInterrupt:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        queue = survivors
        if queue and attempts >= _ATTEMPTS:
            for config in queue:
                report.take(config, {"error": "its worker process died, repeatedly (out of memory?)"})
            break
    return busy


def _attempt(content: dict[str, Any], wait_for_others: bool) -> dict[str, Any]:
    """In a worker: one run; its record, {"busy": True}, or {"error": line}."""
    try:
        return execute(from_dict(content), wait=wait_for_others)
    except RunBusy:
        return {"busy": True}
    except SuiteError as error:
        return {"error": one_line(error)}


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
        name = f"{config.task.name} {config.model.name} {config.rule.name} seed {config.seed}"
        text = f"{name}: not run: {outcome['error']}" if "error" in outcome else describe(outcome)
        if outcome.get("status") != "done":
            self.problems.append(Problem(name, outcome.get("error") or outcome["reason"]))
        elapsed = time.monotonic() - self._began
        left = elapsed / self._finished * (self._total - self._finished)
        seconds = f" in {outcome['seconds']:.1f} s" if "seconds" in outcome else ""
        print(f"[{self._finished}/{self._total}, {duration(left)} left] {text}{seconds}", flush=True)
        return True


def default_jobs() -> int:
    """One worker for each core this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
