"""Launcher of one run after the other, in this process."""

from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.config import Config, to_dict
from benchmarks.launchers.base import LAUNCHERS, Launcher, attempt
from benchmarks.launchers.report import Report


@LAUNCHERS.register("serial")
@dataclass(frozen=True)
class Serial(Launcher):
    """Launcher of one run after the other; those that another process holds come last, and are waited for."""

    def width(self, device: str) -> int:
        return 1

    def carry_out(self, configs: Sequence[Config], report: Report) -> None:
        busy = [config for config in configs if not report.take(config, attempt(to_dict(config), False))]
        for config in busy:
            report.take(config, attempt(to_dict(config), True))
