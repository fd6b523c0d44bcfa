"""Plan → run → table: everything that stands behind `make reproduce-table-N` and `make reproduce-figure-N`."""

import argparse
import sys
from collections.abc import Sequence

from benchmarks.commands.options import add_plan_options, overrides
from benchmarks.launchers import make_launcher, settings_among
from benchmarks.launchers.report import Problem
from benchmarks.tables.make import draw_with_table, load_target, reproduce, targets
from benchmarks.tables.plan import make_plan
from benchmarks.tables.spec import TableSpec
from benchmarks.utils.exits import EXIT_DONE, EXIT_RUNS_FAILED, EXIT_UNUSABLE, USER_ERRORS, guarded, one_line


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `python -m benchmarks reproduce`."""
    options = make_parser().parse_args(arguments)

    def command() -> int:
        settings = overrides(options)
        launcher, device = settings_among(settings)
        jobs = make_launcher(launcher).width(device)
        rules = [rule for rule in options.rules.split(",") if rule]
        problems: list[Problem] = []
        unusable: dict[str, list[str]] = {}
        for name in targets(options.target):
            try:
                target = load_target(name, rules)
                seeds = options.seeds if isinstance(target, TableSpec) else None
                plan = make_plan(target, options.scale, seeds, settings, jobs)
                print(plan.describe(jobs), flush=True)
                if not options.dry:
                    problems += reproduce(plan)
                    for figure in target.file.figures if isinstance(target, TableSpec) else ():
                        problems += draw_with_table(figure, plan.scale, settings, jobs)
            except USER_ERRORS as error:  # kept for the end, so that the other tables are made
                unusable.setdefault(one_line(error), []).append(name)
        for reason, names in unusable.items():
            print(f"error: {', '.join(names)}: {reason}", file=sys.stderr)
        for problem in problems:
            print(f"error: {problem.name}: {problem.reason}", file=sys.stderr)
        if unusable:
            return EXIT_UNUSABLE
        return EXIT_RUNS_FAILED if problems else EXIT_DONE

    sys.exit(guarded(command))


def make_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks reproduce", description=__doc__)
    parser.add_argument("target", nargs="+", help="table_3, figure_2, ... or 'all'")
    add_plan_options(parser)
    parser.add_argument(
        "--launcher", default="", help="local (default) | serial | slurm | ray; --set launcher.… for its options"
    )
    parser.add_argument("--jobs", type=int, help="runs at once (default: one per core)")
    parser.add_argument("--dry", action="store_true", help="print the plan and stop")
    return parser
