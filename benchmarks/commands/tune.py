"""Choose the learning rates of a table on validation."""

import argparse
import sys
from collections.abc import Sequence

from benchmarks.commands.options import add_config_dir, add_jobs, add_settings, command_parser, overrides, words
from benchmarks.utils.exits import EXIT_DONE, EXIT_RUNS_FAILED, guarded


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `python -m benchmarks tune`."""
    options = make_parser().parse_args(arguments)
    sys.exit(guarded(lambda: run(options), resumes=True))


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's options."""
    parser = command_parser("tune", __doc__ or "", "tune table_6 --scale mini --dry")
    parser.add_argument("table", help="a table whose file has `rates`, e.g. table_6")
    parser.add_argument("--scale", default="mini", help="paper | mini (default) | smoke")
    parser.add_argument(
        "--rules", default="", help="further rules, separated by commas: choose the rates of their rows alone"
    )
    add_jobs(parser)
    add_settings(parser)
    add_config_dir(parser)
    parser.add_argument("--dry", action="store_true", help="print what would be run and stop")
    return parser


def run(options: argparse.Namespace) -> int:
    """Run the trials and keep the best rates; return the exit code."""
    from benchmarks.tuning.rates import tune

    problems = tune(options.table, options.scale, overrides(options), options.dry, words(options.rules))
    return EXIT_RUNS_FAILED if problems else EXIT_DONE
