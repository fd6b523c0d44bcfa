"""Show what there is of each table and figure: runs done, committed, running, interrupted, failed, missing, …, and why.

Nothing is started, and no data are needed.
"""

import argparse
import sys
from collections.abc import Sequence

from benchmarks.commands.options import add_plan_options, command_parser, overrides, words
from benchmarks.utils.exits import EXIT_DONE, EXIT_UNUSABLE, guarded, report_error


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `python -m benchmarks status`."""
    options = make_parser().parse_args(arguments)
    sys.exit(guarded(lambda: run(options)))


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's options."""
    parser = command_parser("status", __doc__ or "", "status table_3 table_4")
    parser.add_argument(
        "target", nargs="*", help="table_3, figure_2, … (default: what `reproduce all` makes, and the runs of no table)"
    )
    add_plan_options(parser)
    return parser


def run(options: argparse.Namespace) -> int:
    """Print the state of what is asked for; return the exit code."""
    from benchmarks.tables.status import groups_of, show
    from benchmarks.tables.targets import Plans

    plans = Plans(options.target or ["all"], options.scale, options.seeds, words(options.rules), overrides(options))
    groups = groups_of(plans, with_others=not options.target)
    for line in plans.errors():
        report_error(line)
    if groups or not plans.errors():
        print(show(groups))
    return EXIT_UNUSABLE if plans.errors() else EXIT_DONE
