"""Options that several commands share."""

import argparse
import math
from typing import NoReturn

from benchmarks.errors import ConfigError
from benchmarks.utils.exits import EXIT_UNUSABLE
from benchmarks.utils.overrides import quoted
from benchmarks.utils.paths import add_config_folder
from benchmarks.utils.values import MOST


def command_parser(name: str, what: str, example: str) -> argparse.ArgumentParser:
    """Return the parser of a command, whose help ends with an example.

    Args:
        name: of the command.
        what: it does, in a sentence or more.
        example: a command line without `python -m benchmarks`.
    """
    return _Parser(
        prog=f"python -m benchmarks {name}",
        description=what,
        epilog=f"example:\n  python -m benchmarks {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


class _Parser(argparse.ArgumentParser):
    """Parser that tells a mistake in one line, without the usage before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_UNUSABLE, f"error: {' '.join(message.split())}; see {self.prog} --help\n")


def positive(text: str) -> int:
    """Read a count of at least 1."""
    count = int(text)
    if not 1 <= count <= MOST:
        raise argparse.ArgumentTypeError(f"must be from 1 to {MOST}, got {text}")
    return count


positive.__name__ = "int"  # in the message about what is no number


def seconds(text: str) -> float:
    """Read a duration."""
    duration = float(text)
    if not (math.isfinite(duration) and duration >= 0):
        raise argparse.ArgumentTypeError(f"must be finite and not negative, got {text}")
    return duration


seconds.__name__ = "float"


def add_config_dir(parser: argparse.ArgumentParser) -> None:
    """Add `--config-dir`, which takes effect as soon as it is read."""
    parser.add_argument(
        "--config-dir",
        action="append",
        type=_config_folder,
        metavar="FOLDER",
        help="folder with task/, model/, rule/, table/, figure/ … of your own; may be given several times",
    )


def add_plan_options(parser: argparse.ArgumentParser) -> None:
    """Add what determines which runs a table or figure takes."""
    parser.add_argument("--scale", default="auto", help="auto (default) | paper | mini | smoke")
    parser.add_argument(
        "--seeds", type=positive, help="seeds per cell of a table (default: its own); a figure shows seed 0"
    )
    parser.add_argument("--rules", default="", help="further rules to add as rows, separated by commas")
    parser.add_argument("--results", default="", help="folder of runs, tables and figures (default: results)")
    add_settings(parser)
    add_config_dir(parser)


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add `--set`."""
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override for every run")


def add_jobs(parser: argparse.ArgumentParser) -> None:
    """Add `--jobs`."""
    parser.add_argument("--jobs", type=positive, help="runs at once (default: one per core)")


def overrides(options: argparse.Namespace) -> list[str]:
    """Return what the options say about every run and their launcher, as overrides."""
    given = vars(options)
    return [
        *([f"launcher={given['launcher']}"] if given.get("launcher") else []),
        *([f"launcher.jobs={given['jobs']}"] if given.get("jobs") is not None else []),
        *given.get("set", []),
        *([f"run.results_dir={quoted(given['results'])}"] if given.get("results") else []),
    ]


def words(text: str) -> list[str]:
    """Split a list of words separated by commas."""
    return [word for word in text.split(",") if word]


def _config_folder(folder: str) -> str:
    try:
        add_config_folder(folder)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("--config-dir: ")) from None
    return folder
