"""Kill the processes of a sweep at random moments and compare what it leaves with an undisturbed one.

Workers and the driver, which is then started again, get SIGKILL. Records, histories, weights and the table must agree
digit for digit, and no record may be written twice.
"""

import argparse
import sys
from collections.abc import Sequence

from benchmarks.commands.options import add_config_dir, command_parser, positive, seconds
from benchmarks.errors import ConfigError
from benchmarks.utils.exits import EXIT_DONE, EXIT_RUNS_FAILED, guarded, report_error


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `python -m benchmarks chaos`."""
    options = make_parser().parse_args(arguments)
    sys.exit(guarded(lambda: run(options)))


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's options."""
    parser = command_parser("chaos", __doc__ or "", "chaos --kills 40")
    parser.add_argument("--table", default="table_2", help="whose runs (default: table_2)")
    parser.add_argument("--scale", default="smoke", help="of the runs (default: smoke)")
    parser.add_argument("--seeds", type=positive, default=5, help="seeds per cell (default: 5, 65 runs)")
    parser.add_argument("--kills", type=positive, default=20, help="processes to kill (default: 20)")
    parser.add_argument("--pauses", type=seconds, nargs=2, default=(1.0, 8.0), help="shortest, longest seconds between")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments and victims")
    add_config_dir(parser)
    parser.add_argument("--damage", action="store_true", help="damage a history after each kill, too")
    return parser


def run(options: argparse.Namespace) -> int:
    """Run the sweep twice and compare; return the exit code."""
    from benchmarks.launchers.chaos import compare_sweeps

    if options.pauses[0] > options.pauses[1]:
        raise ConfigError(f"--pauses: {options.pauses[0]:g} is more than {options.pauses[1]:g}")
    problems = compare_sweeps(
        options.table, options.scale, options.seeds, options.kills, options.pauses, options.seed, options.damage
    )
    for line in problems:
        report_error(line)
    return EXIT_RUNS_FAILED if problems else EXIT_DONE
