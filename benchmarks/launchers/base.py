"""Base class of launchers, which carry out runs, here or elsewhere, and report each as it ends."""

import sys
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from benchmarks.config import Config, from_dict, identity
from benchmarks.errors import ConfigError, SuiteError
from benchmarks.launchers.report import Outcome, Report
from benchmarks.run.build import find_device
from benchmarks.run.execute import execute, record_failure
from benchmarks.run.records import RunBusy, RunFolder
from benchmarks.utils.exits import one_line
from benchmarks.utils.traces import own_place
from dfa.registry import Registry

ATTEMPTS = 3
"""Deaths of a run's process without progress in between, after which the run is given up."""


class Launcher(ABC):
    """Base class of launchers; a launcher's options are its constructor's."""

    @abstractmethod
    def width(self, device: str) -> int:
        """Return how many runs are carried out at once, for estimates."""

    def check_device(self, device: str) -> None:
        """Check, before anything is planned, that runs can use a device.

        Raises:
            ConfigError: it is not here, where this launcher carries out its runs on this machine.
        """
        find_device(device)

    @abstractmethod
    def carry_out(self, configs: Sequence[Config], report: Report) -> None:
        """Carry out all runs and report each; one that fails stops none of the others."""


class RemoteLauncher(Launcher):
    """Base class of launchers whose runs are carried out on other machines, with devices of their own.

    Attributes:
        jobs: at most so many runs at once.
    """

    jobs: int

    def check_device(self, device: str) -> None:
        """Do nothing: the devices are elsewhere."""

    def width(self, device: str) -> int:
        return self.jobs


LAUNCHERS: Registry[Callable[..., Launcher]] = Registry("launcher")


def attempt(content: dict[str, Any], wait_for_others: bool) -> Outcome:
    """Carry out one run, from its configuration as a dictionary.

    Raises:
        Interrupted: the process was asked to stop.
    """
    try:
        return execute(from_dict(content), wait=wait_for_others)
    except RunBusy:
        return {"busy": True}
    except SuiteError as error:
        return {"error": one_line(error)}
    except Exception as error:  # one broken run must not stop the others
        return {"error": f"{type(error).__name__}: {one_line(error)}{own_place(error)}"}


class Deaths:
    """Count of the processes that died during each run; a run that makes no progress between deaths is given up."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._reached: dict[str, object] = {}

    def give_up(self, config: Config, what: str) -> Outcome | None:
        """Note a death; return what to report if it was one too many, else None: the run is to be resumed.

        Args:
            config: of the run.
            what: the process that died, e.g. "worker process".
        """
        run, reached = identity(config), RunFolder.of(config).progress()
        if reached != self._reached.get(run):
            self._counts[run] = 0
        self._reached[run] = reached
        self._counts[run] += 1
        return None if self._counts[run] < ATTEMPTS else failure(config, f"its {what} died {ATTEMPTS} times")


def say_stopping(runs: int) -> None:
    """Tell, after a signal, that so many runs are being stopped."""
    print(f"stopping {runs} runs at a checkpoint; a second signal stops at once", file=sys.stderr, flush=True)


def failure(config: Config, reason: str) -> Outcome:
    """Record the failure of a run whose process died before it could do so."""
    try:
        return record_failure(config, f"{reason} (out of memory?)")
    except RunBusy:
        return {"busy": True}
    except SuiteError as error:
        return {"error": one_line(error)}


def required(package: str, extra: str) -> Any:
    """Import a package that only this launcher needs.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return import_module(package)
    except ImportError:
        raise ConfigError(
            f"launcher '{extra}' needs the package '{package}', which is not installed: pip install -e '.[{extra}]'"
        ) from None
