"""Show what there is of each table and figure: runs done, running, interrupted, failed, missing, and why.

Nothing is started, and no data are needed.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.commands.options import Plans, add_plan_options, command_parser
from benchmarks.run.records import RunFolder
from benchmarks.tables.status import group_of, others, show
from benchmarks.utils.exits import EXIT_DONE, EXIT_UNUSABLE, guarded


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `python -m benchmarks status`."""
    options = make_parser().parse_args(arguments)

    def command() -> int:
        wanted = Plans(options, options.target or ["all"])
        plans = list(wanted)
        groups = [group_of(plan) for plan in plans]
        if not options.target and plans:
            folders = [RunFolder.of(run.config) for plan in plans for run in plan.runs]
            groups.append(others(Path(plans[0].runs[0].config.run.results_dir), folders))
        print(show([group for group in groups if group.runs]))
        return EXIT_UNUSABLE if wanted.report() else EXIT_DONE

    sys.exit(guarded(command))


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's options."""
    parser = command_parser("status", __doc__ or "", "status table_3 table_4")
    parser.add_argument("target", nargs="*", help="table_3, figure_2, … (default: all, and the runs of no table)")
    add_plan_options(parser)
    return parser
