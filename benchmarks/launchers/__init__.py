"""Launchers, which carry out the runs of a sweep or table: chosen by name, all with the same reports."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.config import Config, compose_config
from benchmarks.errors import ConfigError

# Each registers itself.
from benchmarks.launchers import local, ray, serial, slurm  # noqa: F401
from benchmarks.launchers.base import LAUNCHERS, Launcher
from benchmarks.launchers.report import Problem, Report
from dfa.registry import OptionError, UnknownNameError


def launch(configs: Sequence[Config], settings: Mapping[str, Any], shown: bool = True) -> list[Problem]:
    """Carry out runs.

    Args:
        configs: the runs.
        settings: `launcher` of the configuration, a name and options.
        shown: print a line for each run that ends.

    Returns:
        What failed or diverged, was not begun or ended from outside.

    Raises:
        ConfigError: an unknown launcher, an option it does not have, a package or a cluster that is not there.
    """
    launcher = make_launcher(settings)
    report = Report(configs, shown, launcher.width(configs[0].run.device) if configs else 1)
    launcher.carry_out(configs, report)
    return report.problems


def make_launcher(settings: Mapping[str, Any]) -> Launcher:
    """Build the launcher that `settings` name and describe.

    Raises:
        ConfigError: there is none, or not with these options, or the package it needs is not installed.
    """
    options = dict(settings)
    try:
        launcher: Launcher = LAUNCHERS.build(options.pop("name", "local"), **options)
    except (UnknownNameError, OptionError) as error:
        raise ConfigError(str(error)) from None
    return launcher


def settings_among(overrides: Sequence[str]) -> tuple[dict[str, Any], str]:
    """Return the launcher's settings and the device that overrides ask for, whatever else they ask for."""
    concerned = [
        words for words in overrides if words.lstrip("+").startswith(("launcher=", "launcher.", "run.device="))
    ]
    config = compose_config(concerned)
    return {str(key): value for key, value in config.launcher.items()}, str(config.run.device)
