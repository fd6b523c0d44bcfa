"""Launcher of tasks on an existing Ray cluster.

The results folder has to be shared with the nodes, by a file system whose locks hold between hosts; this code, too.
"""

import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.config import Config, to_dict
from benchmarks.errors import ConfigError
from benchmarks.launchers.base import LAUNCHERS, Deaths, RemoteLauncher, attempt, required, say_stopping
from benchmarks.launchers.report import Outcome, Report
from benchmarks.utils.environment import python_path
from benchmarks.utils.signals import Interrupted, handle_signals
from benchmarks.utils.values import check_count, check_number

_LOOK_EVERY, _TIME_TO_STOP = 1.0, 120.0  # seconds


@LAUNCHERS.register("ray")
@dataclass(frozen=True)
class Ray(RemoteLauncher):
    """Launcher of one Ray task per run; Ray places it where its resources are free.

    A task whose process or node dies is given out again, and the run goes on from its checkpoint.

    Attributes:
        address: of the cluster's head, host:port; "auto": the one that this machine belongs to.
        jobs: at most so many tasks at once.
        cpus, gpus, memory_gb: for each task; GPUs may be shares.
    """

    address: str = "auto"
    jobs: int = 16
    cpus: float = 1
    gpus: float = 0
    memory_gb: float | None = None

    def __post_init__(self) -> None:
        required("ray", "ray")
        check_count("launcher.jobs", self.jobs)
        check_number("launcher.cpus", self.cpus, zero=True)
        check_number("launcher.gpus", self.gpus, zero=True)
        check_number("launcher.memory_gb", self.memory_gb)

    def carry_out(self, configs: Sequence[Config], report: Report) -> None:
        if not configs:
            return
        ray = required("ray", "ray")
        environment = {"env_vars": {"PYTHONPATH": python_path()}}
        try:
            ray.init(address=self.address, runtime_env=environment, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ConfigError(f"no Ray cluster at '{self.address}': {' '.join(str(error).split())}") from None
        try:
            with handle_signals():  # Ray has put a handler of its own in the place of ours
                self._carry_out(ray, configs, report)
        finally:
            ray.shutdown()

    def _carry_out(self, ray: Any, configs: Sequence[Config], report: Report) -> None:
        needs: dict[str, Any] = {"num_cpus": self.cpus, "num_gpus": self.gpus, "max_retries": 0}
        if self.memory_gb is not None:
            needs["memory"] = int(self.memory_gb * 2**30)
        task = ray.remote(**needs)(_carry_out_task)
        queue, deaths = deque(configs), Deaths()
        under_way: dict[Any, Config] = {}
        try:
            while queue or under_way:
                while queue and len(under_way) < self.jobs:
                    config = queue.popleft()
                    under_way[task.remote(str(Path.cwd()), to_dict(config))] = config
                for reference in ray.wait(list(under_way), timeout=_LOOK_EVERY)[0]:
                    config = under_way.pop(reference)
                    outcome = _result(ray, reference)
                    if "died" in outcome or "interrupted" in outcome:
                        given_up = deaths.give_up(config, f"Ray task ({next(iter(outcome.values()))})")
                        if given_up is None:
                            queue.append(config)
                            continue
                        outcome = given_up
                    if not report.take(config, outcome):
                        queue.append(config)
        except Interrupted:
            say_stopping(len(under_way))
            for reference in under_way:
                ray.cancel(reference)
            ray.wait(list(under_way), num_returns=len(under_way), timeout=_TIME_TO_STOP)
            raise


def _carry_out_task(folder: str, content: dict[str, Any]) -> Outcome:
    """Begin or resume a run, in a Ray task; relative paths are taken from `folder`."""
    os.chdir(folder)
    try:
        with handle_signals(kill_on_second=False):
            return attempt(content, wait_for_others=True)
    except Interrupted as request:
        return {"interrupted": str(request)}


def _result(ray: Any, reference: Any) -> Outcome:
    """Return the result of a task, or {"died": how}."""
    try:
        outcome: Outcome = ray.get(reference)
    except ray.exceptions.RayError as error:
        return {"died": type(error).__name__}
    return outcome
