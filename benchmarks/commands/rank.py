"""Rank the recorded settings of a task, model and rule by their validation metric."""

import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.commands.options import add_config_dir, command_parser
from benchmarks.config import compose_config
from benchmarks.errors import ConfigError
from benchmarks.tuning.ranking import GROUPS, rank, show
from benchmarks.utils.exits import EXIT_DONE, guarded


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `python -m benchmarks rank`."""
    parser = command_parser("rank", __doc__ or "", "rank task=cora model=gcn rule=dfa scale=mini --top 5")
    add_config_dir(parser)
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
