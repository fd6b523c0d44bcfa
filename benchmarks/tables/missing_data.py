"""Data that runs of a plan need, and synthetic ones that may take their place."""

from pathlib import Path

from benchmarks.config import Config
from benchmarks.registry import DATA_CHECKS
from benchmarks.run.build import load_data_checks


def settle_data(config: Config, missing: str, stand_in: bool) -> str:
    """Have a run use stand-in data where its scale asks for them, or allows them in place of missing ones.

    Args:
        missing: what `missing_data` says of it.
        stand_in: whether generated data may take the place.

    Returns:
        What is missing still.
    """
    at_smoke = config.scale == "smoke" and _is_checked(config)
    if at_smoke or (missing and config.scale != "paper" and stand_in):
        config.task.source = "stand_in"
        return ""
    return missing


def missing_data(config: Config) -> str:
    """Return why the data of a run are not available here, or "" if they are.

    Tables print the reason, so an absolute data folder, which differs between machines, is given as its variable.
    """
    if config.task.source == "stand_in":
        return ""
    if config.run.download or not _is_checked(config):
        return ""
    folder = Path(config.run.data_dir)
    reason = DATA_CHECKS[config.task.name](folder)
    return reason.replace(str(folder), "$DFA_DATA_DIR") if folder.is_absolute() else reason


def _is_checked(config: Config) -> bool:
    """Return whether the task has a data check, and with it stand-in data."""
    load_data_checks(config)
    return config.task.name in DATA_CHECKS
