"""Launcher of an array of Slurm jobs, through submitit.

The results folder has to be shared with the nodes, by a file system whose locks hold between hosts.
"""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from shutil import which
from typing import Any, Literal

from benchmarks.config import Config, to_dict
from benchmarks.errors import ConfigError
from benchmarks.launchers.base import LAUNCHERS, RemoteLauncher, attempt, failure, required
from benchmarks.launchers.report import Outcome, Report
from benchmarks.run.records import RunFolder
from benchmarks.utils.environment import changed, python_path
from benchmarks.utils.exits import EXIT_TERMINATED
from benchmarks.utils.signals import SIGNALS, Interrupted, handle_signals, received
from benchmarks.utils.values import check_count, check_number

_LOOK_EVERY, _ASK_QUEUE_EVERY, _SLURM_ENDS_JOBS_IN = 1.0, 20.0, 600.0  # seconds
_FROM_OUTSIDE = ("CANCELLED", "PREEMPTED", "TIMEOUT", "DEADLINE", "REVOKED", "GONE")


@LAUNCHERS.register("slurm")
@dataclass(frozen=True)
class Slurm(RemoteLauncher):
    """Launcher of an array of jobs, one for each run.

    Before its time limit, and where it is preempted, a job saves a checkpoint and is requeued.

    Attributes:
        jobs: at most so many jobs at once.
        partition: null: the cluster's default.
        minutes: time limit of a job.
        cpus, gpus, memory_gb: for each job; null: as the cluster gives.
        requeues: a run may go on in a new job so often after a time limit.
        cluster: "slurm"; "local" has submitit start the same jobs on this machine, without Slurm.
    """

    jobs: int = 16
    partition: str | None = None
    minutes: int = 240
    cpus: int = 1
    gpus: int = 0
    memory_gb: float | None = None
    requeues: int = 3
    cluster: Literal["slurm", "local"] = "slurm"

    def __post_init__(self) -> None:
        required("submitit", "slurm")
        if self.cluster == "slurm" and which("srun") is None:
            raise ConfigError("launcher 'slurm' needs Slurm's `srun`, which this machine does not have")
        for name in ("jobs", "minutes", "cpus"):
            check_count(f"launcher.{name}", getattr(self, name))
        for name in ("gpus", "requeues"):
            check_number(f"launcher.{name}", getattr(self, name), zero=True)
        check_number("launcher.memory_gb", self.memory_gb)

    def carry_out(self, configs: Sequence[Config], report: Report) -> None:
        if not configs:
            return
        waiting = dict(zip(self._submit(configs), configs, strict=True))
        queue = _Queue()
        try:
            while waiting:
                for job in list(waiting):
                    if queue.is_over(job):
                        report.take(waiting[job], _outcome(job, waiting[job]))
                        del waiting[job]
                time.sleep(_LOOK_EVERY)
        except Interrupted:
            print(f"cancelling {len(waiting)} jobs, which save a checkpoint", file=sys.stderr, flush=True)
            for job in waiting:
                with suppress(subprocess.CalledProcessError, OSError):
                    job.cancel()
            raise

    def _submit(self, configs: Sequence[Config]) -> list[Any]:
        submitit = required("submitit", "slurm")
        logging.getLogger("submitit").setLevel(logging.ERROR)  # it warns where a cluster keeps no accounts
        folder = Path(configs[0].run.results_dir) / "runs" / ".slurm" / "%j"
        parameters: dict[str, Any] = {"timeout_min": self.minutes, "cpus_per_task": self.cpus, "name": "dfa"}
        if self.gpus:
            parameters["gpus_per_node"] = self.gpus
        if self.memory_gb is not None:
            parameters["mem_gb"] = self.memory_gb
        if self.cluster == "slurm":
            parameters |= {"slurm_array_parallelism": self.jobs, "slurm_additional_parameters": {"requeue": True}}
            if self.partition is not None:
                parameters["slurm_partition"] = self.partition
        try:
            executor = submitit.AutoExecutor(
                folder, cluster=self.cluster, **{f"{self.cluster}_max_num_timeout": self.requeues}
            )
            executor.update_parameters(**parameters)
            with changed(PYTHONPATH=python_path()):
                jobs: list[Any] = executor.map_array(Job(), [to_dict(config) for config in configs])
        except (RuntimeError, subprocess.CalledProcessError, submitit.core.utils.FailedJobError) as error:
            raise ConfigError(f"Slurm does not take the jobs: {' '.join(str(error).split())}") from None
        return jobs


class Job:
    """Work of one job: begin or resume a run. Pickled by submitit, which calls `checkpoint` to requeue it."""

    def __call__(self, content: dict[str, Any]) -> Outcome:
        """Return the outcome of the run; does not return if the job has to end before."""
        submitit_handlers = {number: signal.getsignal(number) for number in SIGNALS}
        asked: tuple[int, ...] = ()
        try:
            with handle_signals(kill_on_second=False):
                try:
                    return attempt(content, wait_for_others=True)
                finally:
                    asked = received()
        except Interrupted:
            # The checkpoint is saved and the lock is free. submitit requeues on its own signal and lets SIGTERM pass:
            # that is Slurm's, which ends the job soon, and requeues it by itself if it is to go on, but only if it is
            # still there.
            for number in asked:
                handler = submitit_handlers[signal.Signals(number)]
                if number in (signal.SIGUSR1, signal.SIGUSR2) and callable(handler):
                    handler(number, None)
            if signal.SIGTERM in asked and "SLURM_JOB_ID" in os.environ:
                time.sleep(_SLURM_ENDS_JOBS_IN)
            sys.exit(EXIT_TERMINATED)

    def checkpoint(self, content: dict[str, Any]) -> Any:
        """Return the submission that resumes the run, whose folder says where."""
        return required("submitit", "slurm").helpers.DelayedSubmission(self, content)


class _Queue:
    """Watch over jobs, which asks Slurm's queue now and then, since not every cluster keeps accounts."""

    def __init__(self) -> None:
        self._asked = time.monotonic()
        self._here: list[set[str]] = []

    def is_over(self, job: Any) -> bool:
        """Return whether a job has a result or will have none: it is neither waiting nor running, twice in a row."""
        if job.paths.result_pickle.exists():
            return True
        if type(job).__name__ != "SlurmJob":
            return bool(job.done())
        if time.monotonic() - self._asked > _ASK_QUEUE_EVERY:
            self._asked, answer = time.monotonic(), _queued()
            self._here = [] if answer is None else [*self._here, answer][-2:]
        return len(self._here) == 2 and all(job.job_id not in here for here in self._here)


def _queued() -> set[str] | None:
    """Return the ids of all of the user's jobs, array jobs one by one; None if Slurm does not answer."""
    command = ["squeue", "--noheader", "--array", "--me", "--format=%i"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return set(answer.split())


def _outcome(job: Any, config: Config) -> Outcome:
    """Return the outcome of a job that is over: its result, the run's record, or how it ended."""
    if job.paths.result_pickle.exists():
        error = job.exception()
        if error is None:
            outcome: Outcome = job.result()
            return outcome
        lines = [line for line in str(error).splitlines() if line.strip(" -")]
        last = next((line for line in lines if "Error: " in line), lines[0])
        return {"interrupted": last.split("Error: ", 1)[-1].strip()}
    record = RunFolder.of(config).read()
    if record is not None:
        return record
    state = str(job.state).split(maxsplit=1)[0].rstrip("+").upper()
    if state in ("UNKNOWN", "COMPLETED"):
        state = "GONE"
    where = f"Slurm job {job.job_id} ended before it: {state}"
    return {"interrupted": where} if state in _FROM_OUTSIDE else failure(config, where)
