"""Fetch public data sets and verify them.

Other commands download nothing unless run.download=true asks for it. Of data without a public download, this one says
where to place the files.
"""

import argparse
import sys
from collections.abc import Sequence

from benchmarks.commands.options import add_config_dir, command_parser
from benchmarks.utils.exits import EXIT_DONE, EXIT_UNUSABLE, guarded
from benchmarks.utils.paths import config_files


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `python -m benchmarks fetch`."""
    sys.exit(guarded(lambda: run(make_parser().parse_args(arguments))))


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's options."""
    parser = command_parser("fetch", __doc__ or "", "fetch cora pubmed")
    parser.add_argument("task", nargs="+", help=f"one or more of: {', '.join(config_files('task'))}")
    parser.add_argument("--data-dir", default="", help="where to put them (default: DFA_DATA_DIR, else data/)")
    add_config_dir(parser)
    return parser


def run(options: argparse.Namespace) -> int:
    """Fetch the data of the tasks that are asked for; return the exit code."""
    from benchmarks.run.fetch import fetch_tasks

    return EXIT_DONE if fetch_tasks(options.task, options.data_dir) else EXIT_UNUSABLE
