"""Build the site: the documents, the library's reference, and every committed table down to its runs."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.commands.options import command_parser
from benchmarks.utils.exits import EXIT_DONE, guarded
from benchmarks.utils.paths import REPOSITORY


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `python -m benchmarks site`."""
    options = make_parser().parse_args(arguments)
    sys.exit(guarded(lambda: run(options)))


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's options."""
    parser = command_parser("site", __doc__ or "", "site --to /tmp/site")
    parser.add_argument("--to", type=Path, default=REPOSITORY / "site", help="folder of the pages (default: site)")
    parser.add_argument(
        "--numbers", action="store_true", help="only write the numbers that documents link to tables anew, in place"
    )
    return parser


def run(options: argparse.Namespace) -> int:
    """Build the site, or write the numbers of documents anew; return the exit code."""
    from benchmarks.site.build import build, write_numbers

    if options.numbers:
        changed = write_numbers()
        print("\n".join(f"written: {path}" for path in changed) or "all numbers are those of the tables")
        return EXIT_DONE
    build(options.to)
    print(f"written: {options.to / 'index.html'}")
    return EXIT_DONE
