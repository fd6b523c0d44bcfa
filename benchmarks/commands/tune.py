"""Choose the learning rates of a table on validation."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.commands.options import add_config_dir, command_parser
from benchmarks.tables.spec import load_spec
from benchmarks.tuning.rates import describe, keep_best, run_trials, to_markdown, write_report
from benchmarks.tuning.trials import make_trials, rates_of, taking_part
from benchmarks.utils.exits import EXIT_DONE, EXIT_RUNS_FAILED, guarded


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `python -m benchmarks tune`."""
    options = make_parser().parse_args(arguments)

    def command() -> int:
        spec = load_spec(options.table.replace("-", "_").lower())
        jobs = [] if options.jobs is None else [f"launcher.jobs={options.jobs}"]
        trials = make_trials(spec, options.scale, [*options.set, *jobs])
        print(describe(spec, trials, options.scale), flush=True)
        if options.dry:
            return EXIT_DONE
        walk = rates_of(spec).walk
        problems = run_trials(trials, walk)
        trials = taking_part(trials, walk)
        results = Path(trials[0].configs[0].run.results_dir) / "search"
        written = [*write_report(spec, trials, options.scale, results), keep_best(spec, trials, options.scale)]
        print(f"\n{to_markdown(spec, trials, options.scale)}\nwritten: {', '.join(map(str, written))}")
        return EXIT_RUNS_FAILED if problems else EXIT_DONE

    sys.exit(guarded(command))


def make_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = command_parser("tune", __doc__ or "", "tune table_6 --scale mini --dry")
    parser.add_argument("table", help="a table whose file has `rates`, e.g. table_6")
    parser.add_argument("--scale", default="mini", help="paper | mini (default) | smoke")
    parser.add_argument("--jobs", type=int, help="runs at once (default: one per core)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override for every run")
    add_config_dir(parser)
    parser.add_argument("--dry", action="store_true", help="say what would be run and stop")
    return parser
