"""Run what a table or figure needs, then write it beside the paper's numbers.

The plan is printed first: what is recorded, what has to be run, what lacks its data, and the estimated time.
Whatever is recorded is not run again. `--dry` stops after the plan.
"""

import argparse
import sys
from collections.abc import Sequence

from benchmarks.commands.options import add_jobs, add_plan_options, command_parser, overrides, words
from benchmarks.utils.exits import EXIT_DONE, EXIT_RUNS_FAILED, EXIT_UNUSABLE, guarded, report_error


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `python -m benchmarks reproduce`."""
    options = make_parser().parse_args(arguments)
    sys.exit(guarded(lambda: run(options), resumes=True))


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's options."""
    parser = command_parser("reproduce", __doc__ or "", "reproduce table_3 --scale mini --seeds 3 --jobs 2")
    parser.add_argument("target", nargs="+", help="table_3, figure_2, … or 'all'")
    add_plan_options(parser)
    parser.add_argument(
        "--cells", default="", help="run these alone: patterns of rows or row:column, separated by commas"
    )
    parser.add_argument(
        "--launcher", default="", help="local (default) | serial | slurm | ray; --set launcher.… for its options"
    )
    add_jobs(parser)
    parser.add_argument("--dry", action="store_true", help="print the plan and stop")
    parser.add_argument("--force", action="store_true", help="replace a table on disk also by one with fewer results")
    parser.add_argument("--fresh", action="store_true", help="leave committed records out")
    return parser


def run(options: argparse.Namespace) -> int:
    """Make the tables and figures that are asked for; return the exit code."""
    from benchmarks.tables.make import reproduce_all
    from benchmarks.tables.targets import Plans

    rules, settings = words(options.rules), overrides(options)
    plans = Plans(options.target, options.scale, options.seeds, rules, settings, options.fresh, words(options.cells))
    problems = reproduce_all(plans, options.dry, options.force)
    for line in (*plans.errors(), *(f"{problem.name}: {problem.reason}" for problem in problems)):
        report_error(line)
    if plans.errors():
        return EXIT_UNUSABLE
    return EXIT_RUNS_FAILED if problems else EXIT_DONE
