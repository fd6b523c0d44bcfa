"""Commit the runs behind a table, bring committed runs back as run folders or tables, or check tables against them.

export   write the recorded runs of tables to results/records/<table>.parquet
import   put committed runs back as run folders, as `reproduce` does by itself
verify   make every committed table again from its records and compare byte for byte
render   write tables from their records, without running what is missing

With DFA_RESULTS_DIR, export and render write below that folder and leave the repository alone.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from benchmarks.commands.options import add_plan_options, command_parser, overrides, words
from benchmarks.errors import ConfigError
from benchmarks.utils.exits import (
    EXIT_DONE,
    EXIT_RUNS_FAILED,
    EXIT_UNUSABLE,
    USER_ERRORS,
    guarded,
    one_line,
    report_error,
)
from benchmarks.utils.text import name_meant

if TYPE_CHECKING:
    from benchmarks.tables.targets import Plans

_PLAN_OPTIONS = ("scale", "seeds", "rules", "results", "set")
_TAKEN = {
    "export": (*_PLAN_OPTIONS, "force"),
    "import": _PLAN_OPTIONS,
    "verify": (),
    "render": ("force",),
}
"""Action → the options it takes; what is committed says for itself how it was made."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `python -m benchmarks records`."""
    options = make_parser().parse_intermixed_args(arguments)
    sys.exit(guarded(lambda: run(options)))


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's options."""
    parser = command_parser("records", __doc__ or "", "records verify table_3")
    parser.add_argument("action", choices=tuple(_TAKEN))
    parser.add_argument("target", nargs="*", help="table_3, figure_6, … (default: all whose records are committed)")
    add_plan_options(parser)
    parser.add_argument(
        "--force", action="store_true", help="replace records by fewer runs, or a table by one with fewer results"
    )
    return parser


def run(options: argparse.Namespace) -> int:
    """Do what is asked for; return the exit code."""
    from benchmarks.tables.archive import archived_tables

    _check_options(options)
    archived = archived_tables()
    names = [name_meant(word, archived) for word in options.target] or archived
    actions = {"export": _export, "import": _import, "verify": _verify, "render": _render}
    return actions[options.action](options, names)


def _check_options(options: argparse.Namespace) -> None:
    """Refuse options that an action does not use, and writing of files that nobody named."""
    parser, taken = make_parser(), _TAKEN[options.action]
    for name in (*_PLAN_OPTIONS, "force"):
        if name not in taken and getattr(options, name) != parser.get_default(name):
            raise ConfigError(f"records {options.action} takes no --{name}")
    if options.action == "export" and not options.target:
        raise ConfigError("records export: name the tables whose runs are to be written")
    if options.action == "render" and not options.target:
        raise ConfigError("records render: name the tables that are to be written")


def _plans(options: argparse.Namespace, names: Sequence[str], fresh: bool = False) -> "Plans":
    from benchmarks.tables.targets import Plans

    return Plans(names, options.scale, options.seeds, words(options.rules), overrides(options), fresh)


def _export(options: argparse.Namespace, names: Sequence[str]) -> int:
    from benchmarks.tables.committed import export

    plans = _plans(options, names, fresh=options.force)
    lines = export(plans, options.force)
    for line in (*plans.errors(), *lines):
        report_error(line)
    if plans.errors():
        return EXIT_UNUSABLE
    return EXIT_RUNS_FAILED if lines else EXIT_DONE


def _import(options: argparse.Namespace, names: Sequence[str]) -> int:
    from benchmarks.tables.committed import restore

    plans = _plans(options, names)
    restore(plans)
    for line in plans.errors():
        report_error(line)
    return EXIT_UNUSABLE if plans.errors() else EXIT_DONE


def _verify(options: argparse.Namespace, names: Sequence[str]) -> int:
    from benchmarks.tables.committed import of_no_table, verify, without_records

    code = EXIT_DONE
    strange = [] if options.target else of_no_table()
    for name in (name for name in names if name not in strange):
        try:
            found = verify(name)
        except USER_ERRORS as error:
            report_error(one_line(error))
            code = EXIT_UNUSABLE
        else:
            print(found)
            code = max(code, EXIT_RUNS_FAILED if found.differing else EXIT_DONE)
    if not options.target and (unchecked := without_records()):
        print(f"not checked, as no records are committed: {', '.join(unchecked)}")
    if strange:
        print(f"not checked, as there is no such table here: {', '.join(strange)}")
    return code


def _render(options: argparse.Namespace, names: Sequence[str]) -> int:
    from benchmarks.tables.committed import render
    from benchmarks.tables.files import RicherTable

    code = EXIT_DONE
    for name in names:
        try:
            print("written: " + ", ".join(map(str, render(name, options.force))))
        except RicherTable as kept:
            report_error(f"{name}: {kept}")
            code = EXIT_RUNS_FAILED
    return code
