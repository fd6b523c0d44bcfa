"""Rank the recorded settings of a task, model and rule by their validation metric."""

import argparse
import sys
from collections.abc import Sequence

from benchmarks.commands.options import add_config_dir, command_parser, positive
from benchmarks.utils.exits import EXIT_DONE, guarded


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `python -m benchmarks rank`."""
    options = make_parser().parse_intermixed_args(arguments)
    sys.exit(guarded(lambda: run(options)))


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's options."""
    parser = command_parser("rank", __doc__ or "", "rank task=cora model=gcn rule=dfa scale=mini --top 5")
    parser.add_argument("choice", nargs="+", help="task=… model=… rule=…, and scale=… (default: paper)")
    parser.add_argument("--top", type=positive, default=10, help="entries to show (default: 10)")
    add_config_dir(parser)
    return parser


def run(options: argparse.Namespace) -> int:
    """Print the ranking; return the exit code."""
    from benchmarks.tuning.ranking import rank_choice, show

    print(show(*rank_choice(options.choice, options.top)))
    return EXIT_DONE
