"""Rank the recorded settings of a task, model and rule by their validation metric."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

from benchmarks.config import compose_config
from benchmarks.errors import ConfigError
from benchmarks.tuning.ranking import GROUPS, Ranked, rank
from benchmarks.utils.exits import EXIT_DONE, guarded
from benchmarks.utils.text import mean_and_spread


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `python -m benchmarks rank`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks rank", description=__doc__)
    parser.add_argument("choice", nargs="+", help="task=… model=… rule=…, and scale=… (default: paper)")
    parser.add_argument("--top", type=int, default=10, help="entries to show (default: 10)")
    options = parser.parse_args(arguments)

    def command() -> int:
        config = compose_config(options.choice)
        wanted = {group: str(config[group].name) for group in GROUPS}
        if options.top < 1:
            raise ConfigError(f"--top must be at least 1, got {options.top}")
        metric, ranked = rank(Path(config.run.results_dir), wanted, config.scale)
        print(show(metric, ranked[: options.top]))
        return EXIT_DONE

    sys.exit(guarded(command))


def show(metric: str, ranked: Sequence[Ranked]) -> str:
    """The ranking as a table."""
    lines = [
        [*entry.settings.values(), mean_and_spread(entry.values), len(entry.values), entry.unsuccessful]
        for entry in ranked
    ]
    return tabulate(lines, [*ranked[0].settings, f"valid {metric}", "seeds", "failed"], disable_numparse=True)
