"""Run what a table or figure needs, then write it beside the paper's numbers.

The plan is printed first: what is recorded, what has to be run, what lacks its data, and the estimated time.
Whatever is recorded is not run again. `--dry` stops after the plan.
"""

import argparse
import sys
from collections.abc import Sequence

from benchmarks.commands.options import Plans, add_plan_options, command_parser
from benchmarks.launchers.report import Problem
from benchmarks.tables.make import draw_with_table, reproduce
from benchmarks.tables.spec import TableSpec
from benchmarks.utils.exits import EXIT_DONE, EXIT_RUNS_FAILED, EXIT_UNUSABLE, USER_ERRORS, guarded


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `python -m benchmarks reproduce`."""
    options = make_parser().parse_args(arguments)

    def command() -> int:
        plans = Plans(options, options.target)
        problems: list[Problem] = []
        for plan in plans:
            print(plan.describe(plans.jobs), flush=True)
            if options.dry:
                continue
            try:
                problems += reproduce(plan, options.force)
                for figure in plan.target.file.figures if isinstance(plan.target, TableSpec) else ():
                    problems += draw_with_table(figure, plan.scale, plans.settings, plans.jobs)
            except USER_ERRORS as error:
                plans.failed(plan.target.name, error)
        unusable = plans.report()
        for problem in problems:
            print(f"error: {problem.name}: {problem.reason}", file=sys.stderr)
        if unusable:
            return EXIT_UNUSABLE
        return EXIT_RUNS_FAILED if problems else EXIT_DONE

    sys.exit(guarded(command))


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's options."""
    parser = command_parser("reproduce", __doc__ or "", "reproduce table_3 --scale mini --seeds 3 --jobs 2")
    parser.add_argument("target", nargs="+", help="table_3, figure_2, … or 'all'")
    add_plan_options(parser)
    parser.add_argument(
        "--launcher", default="", help="local (default) | serial | slurm | ray; --set launcher.… for its options"
    )
    parser.add_argument("--jobs", type=int, help="runs at once (default: one per core)")
    parser.add_argument("--dry", action="store_true", help="print the plan and stop")
    parser.add_argument("--force", action="store_true", help="replace a table on disk also by one with fewer results")
    parser.add_argument("--fresh", action="store_true", help="leave committed records out")
    return parser
