"""Commit the runs behind a table, bring committed runs back as run folders or tables, or check tables against them.

export   write the recorded runs of tables to results/records/<table>.parquet
import   put committed runs back as run folders, as `reproduce` does by itself
verify   make every committed table again from its records and compare byte for byte
render   write tables from their records, without running what is missing
"""

import argparse
import sys
from collections.abc import Sequence

from benchmarks.commands.options import add_plan_options, command_parser, overrides, words
from benchmarks.errors import ConfigError
from benchmarks.utils.exits import EXIT_DONE, EXIT_RUNS_FAILED, EXIT_UNUSABLE, guarded, report_error


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `python -m benchmarks records`."""
    options = make_parser().parse_args(arguments)
    sys.exit(guarded(lambda: run(options)))


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's options."""
    parser = command_parser("records", __doc__ or "", "records verify table_3")
    parser.add_argument("action", choices=("export", "import", "verify", "render"))
    parser.add_argument("target", nargs="*", help="table_3, figure_6, … (default: all whose records are committed)")
    add_plan_options(parser)
    return parser


def run(options: argparse.Namespace) -> int:
    """Do what is asked for; return the exit code."""
    from benchmarks.tables import committed
    from benchmarks.tables.archive import archived_tables
    from benchmarks.tables.targets import Plans

    if options.action == "export" and not options.target:
        raise ConfigError("records export: name the tables whose runs are to be written")
    names = [name.replace("-", "_").lower() for name in options.target] or archived_tables()
    if options.action == "render":
        if not options.target:
            raise ConfigError("records render: name the tables that are to be written")
        for name in names:
            print("written: " + ", ".join(map(str, committed.render(name))))
        return EXIT_DONE
    if options.action == "verify":
        found = [committed.verify(name) for name in names]
        for verification in found:
            print(verification)
        if not options.target and (unchecked := committed.without_records()):
            print(f"not checked, as no records are committed: {', '.join(unchecked)}")
        return EXIT_RUNS_FAILED if any(verification.differing for verification in found) else EXIT_DONE
    plans = Plans(names, options.scale, options.seeds, words(options.rules), overrides(options))
    if options.action == "export":
        committed.export(plans)
    else:
        committed.restore(plans)
    for line in plans.errors():
        report_error(line)
    return EXIT_UNUSABLE if plans.errors() else EXIT_DONE
