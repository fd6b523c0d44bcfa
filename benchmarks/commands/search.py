"""Search for the settings that do best on validation; Optuna proposes them."""

import argparse
import sys
from collections.abc import Sequence

from benchmarks.commands.options import add_config_dir, add_jobs, command_parser, overrides, positive
from benchmarks.utils.exits import EXIT_DONE, guarded
from benchmarks.utils.paths import config_files


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `python -m benchmarks search`."""
    sys.exit(guarded(lambda: run(make_parser().parse_intermixed_args(arguments)), resumes=True))


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's options."""
    example = "search graphs task=cora model=gcn rule=dfa scale=mini --trials 12"
    parser = command_parser("search", __doc__ or "", example)
    spaces = ", ".join(config_files("search"))
    parser.add_argument("space", help=f"what to search: {spaces}, or a YAML file")
    parser.add_argument("choice", nargs="*", help="task=… model=… rule=… scale=…; a searched key given here is held")
    parser.add_argument("--trials", type=positive, default=20, help="settings to try (default: %(default)s)")
    parser.add_argument("--seeds", type=positive, default=1, help="seeds of each (default: %(default)s)")
    parser.add_argument("--at-once", type=positive, default=4, help="proposals at a time (default: %(default)s)")
    parser.add_argument("--sampler-seed", type=int, default=0, help="of the proposals (default: %(default)s)")
    parser.add_argument("--name", default="", help="of the files written (default: task-model-rule-scale)")
    parser.add_argument(
        "--force", action="store_true", help="replace also the report of a search of another space, settings or data"
    )
    add_jobs(parser)
    add_config_dir(parser)
    return parser


def run(options: argparse.Namespace) -> int:
    """Search, and write what was found; return the exit code. That a trial fails is something found out."""
    from benchmarks.tuning.search import Effort, search
    from benchmarks.tuning.search_report import search_folder, to_markdown, write_search

    effort = Effort(options.trials, options.seeds, options.at_once, options.sampler_seed)
    found = search(options.space, [*options.choice, *overrides(options)], effort, options.name, options.force)
    written = write_search(found, search_folder(options.choice), options.force)
    print(f"\n{to_markdown(found)}\nwritten: {', '.join(map(str, written))}")
    return EXIT_DONE
