"""Commit the runs behind a table, bring committed runs back as run folders, or check tables against them.

export   write the recorded runs of tables to results/records/<table>.parquet
import   put committed runs back as run folders, as `reproduce` does by itself
verify   make every committed table again from its records and compare byte for byte
"""

import argparse
import sys
from collections.abc import Sequence

from benchmarks.commands.options import Plans, add_plan_options, command_parser
from benchmarks.errors import ConfigError
from benchmarks.tables.archive import Archive, archived_tables, collect
from benchmarks.tables.verify import verify
from benchmarks.utils.exits import EXIT_DONE, EXIT_RUNS_FAILED, EXIT_UNUSABLE, guarded


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `python -m benchmarks records`."""
    options = make_parser().parse_args(arguments)
    actions = {"export": _export, "import": _import, "verify": _verify}
    sys.exit(guarded(lambda: actions[options.action](options)))


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's options."""
    parser = command_parser("records", __doc__ or "", "records verify table_3")
    parser.add_argument("action", choices=("export", "import", "verify"))
    parser.add_argument("target", nargs="*", help="table_3, figure_6, … (default: all whose records are committed)")
    add_plan_options(parser)
    return parser


def _export(options: argparse.Namespace) -> int:
    if not options.target:
        raise ConfigError("records export: name the tables whose runs are to be written")
    rules = [rule for rule in options.rules.split(",") if rule]
    plans = Plans(options, options.target)
    for plan in plans:
        how = {"scale": plan.scale, "why": plan.why, "seeds": options.seeds, "rules": rules}
        archive = collect(plan.target.name, how, (run.config for run in plan.runs))
        if not archive.runs:
            raise ConfigError(f"{plan.target.heading} has no recorded runs at scale {plan.scale}")
        path = archive.write()
        print(f"{path.name}: {len(archive.runs)} runs of {len(plan.runs)}, {path.stat().st_size / 1e6:.2f} MB")
    return EXIT_UNUSABLE if plans.report() else EXIT_DONE


def _import(options: argparse.Namespace) -> int:
    plans = Plans(options, _named(options))
    for plan in plans:
        restored = plan.restore()
        print(f"{plan.target.name}: {restored} of {len(plan.runs)} runs put back from committed records")
    return EXIT_UNUSABLE if plans.report() else EXIT_DONE


def _verify(options: argparse.Namespace) -> int:
    differing = 0
    for name in _named(options):
        found = list(verify(name))
        differing += len(found)
        print(f"{name}: {len(Archive.of(name).runs)} records, {'; '.join(found) or 'the table is what they give'}")
    return EXIT_RUNS_FAILED if differing else EXIT_DONE


def _named(options: argparse.Namespace) -> list[str]:
    return [name.replace("-", "_").lower() for name in options.target] or archived_tables()
