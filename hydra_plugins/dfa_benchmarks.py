"""Bridge from Hydra's sweeps to the suite's launchers: checks a sweep, composes its jobs and hands them on as one list.

Hydra takes plug-ins from packages of this name only, and finds them by itself.
"""

from collections.abc import Sequence
from itertools import islice
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, RangeSweep
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from benchmarks.errors import ConfigError
from benchmarks.utils.config_choices import check_choices, taken_apart

MOST_VALUES = 100_000
"""Values that a sweep may give a key."""


class SuiteSweeper(BasicSweeper):
    """Hydra sweeper `hydra/sweeper=suite`: all combinations, as Hydra's own has them, checked, and without a file."""

    def sweep(self, arguments: list[str]) -> Any:
        assert self.hydra_context is not None and self.launcher is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        overrides = parser.parse_overrides([*self._parse_config(), *arguments])
        for override in overrides:
            if override.is_discrete_sweep():
                _check_values(override)
        batches = self.split_arguments(overrides, self.max_batch_size)
        return [self.launcher.launch(batch, initial_job_idx=0) for batch in batches]


def _check_values(override: Override) -> None:
    """Refuse a sweep over no values, with which nothing would be run, or over more than memory holds.

    Raises:
        ConfigError: there are no values, too many, or none can be told.
    """
    value = override.value()
    try:
        values = value.range() if isinstance(value, RangeSweep) else override.sweep_iterator()
        count = sum(1 for _ in islice(values, MOST_VALUES + 1))
    except (ValueError, ArithmeticError) as error:  # a step of zero; a bound that is not a number
        reason = str(error) if isinstance(error, ValueError) else "not a number"
        raise ConfigError(f"cannot read '{override.input_line}': {reason}") from None
    if not count:
        raise ConfigError(f"'{override.input_line}' gives no runs")
    if count > MOST_VALUES:
        raise ConfigError(f"'{override.input_line}' gives more than {MOST_VALUES} values")


class SuiteLauncher(Launcher):
    """Hydra launcher `hydra/launcher=suite`; it returns the best validation value of each run to Hydra's sweepers."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self._loader = hydra_context.config_loader
        self._config = config
        self._carry_out = task_function

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        values = self._carry_out([self._composed(overrides) for overrides in job_overrides])
        return [
            JobReturn(overrides=overrides, status=JobStatus.COMPLETED, _return_value=value)
            for overrides, value in zip(job_overrides, values, strict=True)
        ]

    def _composed(self, overrides: Sequence[str]) -> DictConfig:
        config, choices = taken_apart(self._loader.load_sweep_config(self._config, list(overrides)))
        check_choices(config, choices, overrides)
        return config
