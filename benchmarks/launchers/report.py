"""Report of a sweep: a line for each run as it ends, and the problems again at the end."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.config import Config, identity
from benchmarks.run.names import run_name, run_names
from benchmarks.run.record_schema import DAMAGED, Record, predicts_constant
from benchmarks.run.records import RunFolder
from benchmarks.utils.text import duration, run_title

Outcome = dict[str, Any]
"""A record; {"busy": True}: another process has the run; {"error": line}: it could not be begun;
{"interrupted": line}: it was ended from outside before its end, and can go on."""


CONSTANT_WARNING = "its model predicts the same for every test example"


@dataclass
class Problem:
    """Run that did not end as "done".

    Attributes:
        name: the run in a few words.
        reason: what went wrong, in one line.
        run: its identity, since runs may share a name.
        status: "failed", "diverged", "damaged", "interrupted"; "" if it could not be begun.
    """

    name: str
    reason: str
    run: str = field(default="", compare=False)
    status: str = field(default="", compare=False)

    def __str__(self) -> str:
        return f"{self.name}: {self.status}: {self.reason}" if self.status else self.reason


class Report:
    """Report that prints a line for each run as it ends, with the time left, and keeps the problems.

    Args:
        configs: the runs to come.
        shown: False prints nothing.
        workers: how many runs are carried out at once.
    """

    def __init__(self, configs: Sequence[Config], shown: bool = True, workers: int = 1) -> None:
        self.problems: list[Problem] = []
        self._total = len(configs)
        self._names = run_names(configs)
        self._to_carry_out = {identity(config) for config in configs if not _is_recorded(config)}
        self._carried_out: set[str] = set()
        self._shown = shown
        self._workers = workers
        self._finished = 0
        self._began = time.monotonic()

    def take(self, config: Config, outcome: Outcome) -> bool:
        """Note an outcome; return False if the run was busy."""
        if "busy" in outcome:
            return False
        self._finished += 1
        name = self._names.get(identity(config)) or run_name(config)
        if "error" in outcome:
            told = any(problem.reason == outcome["error"] for problem in self.problems)
            text = f"{name}: not run{', for the same reason' if told else ': ' + outcome['error']}"
            self.problems.append(Problem(name, outcome["error"], identity(config)))
        elif "interrupted" in outcome:
            text = f"{name}: interrupted: {outcome['interrupted']}"
            self.problems.append(Problem(name, outcome["interrupted"], identity(config), "interrupted"))
        else:
            took = "" if outcome["status"] == DAMAGED else f" in {outcome['seconds']:.1f} s"
            text = f"{describe(outcome, name)}{took}"
            if outcome["status"] != "done":
                self.problems.append(Problem(name, outcome["reason"], identity(config), outcome["status"]))
        self._carried_out |= {identity(config)} & self._to_carry_out  # a sweep may name a run twice
        if self._shown:
            print(f"[{self._finished}/{self._total}{self._time_left()}] {text}", flush=True)
        return True

    def _time_left(self) -> str:
        """Estimate the time left from the runs that were not recorded before; "" before the first of them has ended.

        The runs under way are taken to be half done.
        """
        if not self._carried_out:
            return ""
        elapsed, runs = time.monotonic() - self._began, len(self._to_carry_out)
        waiting = runs - len(self._carried_out)
        done = len(self._carried_out) + min(waiting, self._workers - 1) / 2
        return f", {duration(elapsed / done * (runs - done) if waiting else 0.0)} left"


def _is_recorded(config: Config) -> bool:
    return RunFolder.of(config).kept(config.run.retry) is not None


def describe(record: Record, name: str | None = None) -> str:
    """Describe a record, e.g. "cora gcn dfa seed 0: diverged: the training loss is nan at step 12".

    Args:
        record: of a finished run.
        name: the run in a few words; None names task, model, rule and seed.
    """
    name = name or run_title(*(record[part] for part in ("task", "model", "rule", "seed")))
    text = f"{name}: {record['status']}"
    if record["status"] != "done":
        return f"{text}: {record['reason']}"
    return f"{text} ({CONSTANT_WARNING})" if predicts_constant(record) else text
