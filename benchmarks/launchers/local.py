"""Launcher of worker processes on this machine, each of which takes the next run."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait

import torch

from benchmarks.config import Config, to_dict
from benchmarks.errors import ResultsError
from benchmarks.launchers.base import LAUNCHERS, Deaths, Launcher, attempt, say_stopping
from benchmarks.launchers.report import Outcome, Report
from benchmarks.launchers.serial import Serial
from benchmarks.utils.environment import changed
from benchmarks.utils.signals import Interrupted, deferred, handle_signals, stop_if_asked
from benchmarks.utils.values import check_count

_MOST_FAILED_STARTS = 10  # workers in a row that end before they listen, until we stop trying


@LAUNCHERS.register("local")
@dataclass(frozen=True)
class Local(Launcher):
    """Launcher of worker processes on this machine.

    A run that another process holds is put off to the end and then waited for. A worker that dies is replaced, and its
    run is resumed from the checkpoint. One worker, or one run, needs no process but this one.

    Attributes:
        jobs: workers; null: one for each core, or, with `run.device=cuda`, for each GPU, which it has to itself.
    """

    jobs: int | None = None

    def __post_init__(self) -> None:
        check_count("launcher.jobs", self.jobs)

    def width(self, device: str) -> int:
        return self.jobs or len(visible_gpus(device)) or (1 if device.startswith("cuda") else cores())

    def carry_out(self, configs: Sequence[Config], report: Report) -> None:
        workers = min(len(configs), self.width(configs[0].run.device)) if configs else 0
        if workers <= 1:
            Serial().carry_out(configs, report)
            return
        busy = _in_pool(configs, workers, report, wait_for_others=False)
        _in_pool(busy, min(workers, len(busy)), report, wait_for_others=True)


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def visible_gpus(device: str) -> list[str]:
    """List the values that CUDA_VISIBLE_DEVICES may take if runs on `device` may use any GPU; else nothing."""
    if device != "cuda":
        return []
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    return (
        list(map(str, range(torch.cuda.device_count())))
        if chosen is None
        else [name for name in chosen.split(",") if name]
    )


def worker_environment(place: int, workers: int, device: str) -> dict[str, str]:
    """Return the environment of the worker at one of `workers` places: its share of the cores, and a GPU of its own.

    The share counts for whatever does not set its threads itself, as a run with `trainer.threads` does.
    """
    variables = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, cores() // workers)))}
    if gpus := visible_gpus(device):
        variables["CUDA_VISIBLE_DEVICES"] = gpus[place % len(gpus)]
    return variables


def _in_pool(configs: Sequence[Config], count: int, report: Report, wait_for_others: bool) -> list[Config]:
    """Carry out runs in worker processes; return those that another process holds."""
    if not configs:
        return []
    queue, busy, deaths, failed_starts = deque(configs), list[Config](), Deaths(), 0
    workers = [_Worker(worker_environment(place, count, configs[0].run.device)) for place in range(count)]
    try:
        while True:
            for worker in workers:
                if worker.idle and queue:
                    worker.give(queue.popleft(), wait_for_others)
            if not queue and not any(worker.run for worker in workers):
                return busy
            at = {worker.channel: place for place, worker in enumerate(workers)}
            for channel in wait(list(at)):
                place = at[channel]  # type: ignore[index]
                worker = workers[place]
                config, outcome = worker.take()
                if outcome is not None and "interrupted" not in outcome:
                    failed_starts = 0
                    if config and not report.take(config, outcome):
                        busy.append(config)
                    continue
                worker.stop()
                failed_starts += not worker.ready
                if failed_starts == _MOST_FAILED_STARTS:
                    code = worker.process.exitcode
                    raise ResultsError(f"worker processes end before they begin, the last with exit code {code}")
                workers[place] = worker.successor()
                if config is not None:
                    given_up = deaths.give_up(config, "worker process")
                    if given_up is None:
                        queue.append(config)
                    elif not report.take(config, given_up):
                        busy.append(config)
    except Interrupted:
        say_stopping(sum(worker.run is not None for worker in workers))
        raise
    finally:
        for worker in workers:
            worker.ask_to_stop()
        for worker in workers:
            worker.stop()


class _Worker:
    """Worker process that carries out one run after another.

    Attributes:
        ready: it has begun to listen.
        run: what it is at.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self.ready = False
        self.run: Config | None = None
        # A fresh process, not a fork: a fork would inherit the threads' locks of the parent.
        context = multiprocessing.get_context("spawn")
        self.channel, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs,))
        with changed(**environment), _no_sigint():
            self.process.start()
        theirs.close()  # so that the end of the process is the end of the channel

    @property
    def idle(self) -> bool:
        """Return whether it waits for a run."""
        return self.ready and self.run is None

    def successor(self) -> "_Worker":
        """Start another worker in its place."""
        return _Worker(self._environment)

    def give(self, config: Config, wait_for_others: bool) -> None:
        """Have a run carried out."""
        self.run = config
        with suppress(OSError):  # it has just died, as its channel is about to show
            self.channel.send((to_dict(config), wait_for_others))

    def take(self) -> tuple[Config | None, Outcome | None]:
        """Return the last run and its outcome: None if the process died during it, {} if it has begun to listen."""
        config, self.run = self.run, None
        try:
            outcome: Outcome = self.channel.recv()
        except (EOFError, OSError):
            return config, None
        self.ready = True
        return config, outcome

    def ask_to_stop(self) -> None:
        """Ask the process to end; one that is training does so after its next step."""
        self.channel.close()
        if not self.idle:
            self.process.terminate()

    def stop(self) -> None:
        """Wait for the end of a process that is ending, or has nothing to do."""
        self.channel.close()
        self.process.join()


@contextmanager
def _no_sigint() -> Iterator[None]:
    """Give processes that are started inside no SIGINT: Ctrl-C reaches all of a terminal, and this one passes it on."""
    masked = hasattr(signal, "pthread_sigmask")
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}) if masked else set()
    try:
        yield
    finally:
        if masked:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _serve(channel: Connection) -> None:
    """Carry out runs, in a worker, until the channel is closed or the process is asked to stop."""
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    try:
        with handle_signals(kill_on_second=False):
            channel.send({})
            while True:
                outcome = attempt(*channel.recv())
                with deferred():  # not in the middle of a message
                    channel.send(outcome)
                stop_if_asked()
    except Interrupted as request:
        with suppress(OSError):
            channel.send({"interrupted": str(request)})
    except (EOFError, OSError):
        return


def _stop_with_parent() -> None:
    """Ask this worker to stop once its parent process has ended; runs in a thread of the worker."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)
