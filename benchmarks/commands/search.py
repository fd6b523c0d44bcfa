"""Search for the settings that do best on validation; Optuna proposes them."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.commands.options import add_config_dir, command_parser
from benchmarks.config import compose_config
from benchmarks.tuning.search import Effort, known_spaces, search
from benchmarks.tuning.search_report import to_markdown, write_search
from benchmarks.utils.exits import EXIT_DONE, guarded


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `python -m benchmarks search`."""
    options = make_parser().parse_intermixed_args(arguments)

    def command() -> int:
        effort = Effort(options.trials, options.seeds, options.at_once, options.sampler_seed)
        jobs = [] if options.jobs is None else [f"launcher.jobs={options.jobs}"]
        found = search(options.space, [*options.choice, *jobs], effort, options.name)
        folder = Path(compose_config(options.choice).run.results_dir) / "search"
        written = write_search(found, folder)
        print(f"\n{to_markdown(found)}\nwritten: {', '.join(map(str, written))}")
        return EXIT_DONE  # that a trial fails is something found out

    sys.exit(guarded(command))


def make_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    usual = Effort()
    parser = command_parser(
        "search", __doc__ or "", "search graphs task=cora model=gcn rule=dfa scale=mini --trials 12"
    )
    add_config_dir(parser)
    parser.add_argument("space", help=f"what to search: {', '.join(known_spaces())}, or a YAML file")
    parser.add_argument("choice", nargs="*", help="task=… model=… rule=… scale=…; a searched key given here is held")
    parser.add_argument("--trials", type=int, default=usual.trials, help="settings to try (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=usual.seeds, help="seeds of each (default: %(default)s)")
    parser.add_argument("--at-once", type=int, default=usual.at_once, help="proposals at a time (default: %(default)s)")
    parser.add_argument("--sampler-seed", type=int, default=usual.sampler_seed, help="of the proposals (default: 0)")
    parser.add_argument("--jobs", type=int, help="runs at once (default: one per core)")
    parser.add_argument("--name", default="", help="of the files written (default: task-model-rule-scale)")
    return parser
