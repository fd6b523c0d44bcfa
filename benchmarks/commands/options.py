"""Options that several commands share, and the plans that follow from them."""

import argparse
import sys
from collections.abc import Iterator, Sequence

from benchmarks.errors import ConfigError
from benchmarks.launchers import make_launcher, settings_among
from benchmarks.tables.archive import Archive
from benchmarks.tables.make import load_target, targets
from benchmarks.tables.plan import Plan, make_plan
from benchmarks.tables.spec import TableSpec
from benchmarks.utils.exits import USER_ERRORS, one_line
from benchmarks.utils.paths import add_config_folder


def command_parser(name: str, what: str, example: str) -> argparse.ArgumentParser:
    """Return the parser of a command, whose help ends with an example.

    Args:
        name: of the command.
        what: it does, in a sentence or more.
        example: a command line without `python -m benchmarks`.
    """
    return argparse.ArgumentParser(
        prog=f"python -m benchmarks {name}",
        description=what,
        epilog=f"example:\n  python -m benchmarks {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


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
    parser.add_argument("--seeds", type=int, help="seeds per cell of a table (default: its own); a figure shows seed 0")
    parser.add_argument("--rules", default="", help="further rules to add as rows, separated by commas")
    parser.add_argument("--results", default="", help="folder of runs, tables and figures (default: results)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override for every run")
    add_config_dir(parser)


def overrides(options: argparse.Namespace) -> list[str]:
    """Return what the options say about every run and their launcher, as overrides."""
    launcher, jobs = getattr(options, "launcher", ""), getattr(options, "jobs", None)
    return [
        *([f"launcher={launcher}"] if launcher else []),
        *([f"launcher.jobs={jobs}"] if jobs is not None else []),
        *options.set,
        *([f"run.results_dir={options.results}"] if options.results else []),
    ]


class Plans:
    """The plans of the tables and figures that the options name.

    Attributes:
        jobs: runs that the launcher carries out at once.
    """

    def __init__(self, options: argparse.Namespace, names: Sequence[str]) -> None:
        self._options = options
        self._names = targets(names)
        self.settings = overrides(options)
        launcher, device = settings_among(self.settings)
        self.jobs = make_launcher(launcher).width(device)
        self._archive = Archive("") if getattr(options, "fresh", False) else None
        self._unusable: dict[str, list[str]] = {}

    def __iter__(self) -> Iterator[Plan]:
        """Plan one target after the other; those that cannot be planned are kept for `report`."""
        rules = [rule for rule in self._options.rules.split(",") if rule]
        for name in self._names:
            try:
                target = load_target(name, rules)
                seeds = self._options.seeds if isinstance(target, TableSpec) else None
                plan = make_plan(target, self._options.scale, seeds, self.settings, self.jobs, self._archive)
            except USER_ERRORS as error:
                self.failed(name, error)
            else:
                yield plan

    def failed(self, name: str, error: BaseException) -> None:
        """Keep an error, so that the other targets are still made."""
        self._unusable.setdefault(one_line(error), []).append(name)

    def report(self) -> bool:
        """Print the errors, each once with the targets it concerns; return whether there were any."""
        for reason, names in self._unusable.items():
            print(f"error: {', '.join(names)}: {reason}", file=sys.stderr)
        return bool(self._unusable)


def _config_folder(folder: str) -> str:
    try:
        add_config_folder(folder)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return folder
