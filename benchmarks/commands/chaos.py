"""Kill the processes of a sweep at random moments and compare what it leaves with an undisturbed one.

Workers and the driver, which is then started again, get SIGKILL. Records, histories, weights and the table must agree
digit for digit, and no record may be written twice.
"""

import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.commands.options import command_parser
from benchmarks.launchers.chaos import differences, disturb, undisturbed
from benchmarks.utils.exits import EXIT_DONE, EXIT_RUNS_FAILED, guarded


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `python -m benchmarks chaos`."""
    parser = command_parser("chaos", __doc__ or "", "chaos --kills 40")
    parser.add_argument("--table", default="table_2", help="whose runs (default: table_2)")
    parser.add_argument("--scale", default="smoke", help="of the runs (default: smoke)")
    parser.add_argument("--seeds", type=int, default=5, help="seeds per cell (default: 5, 65 runs)")
    parser.add_argument("--kills", type=int, default=20, help="processes to kill (default: 20)")
    parser.add_argument("--pauses", type=float, nargs=2, default=(1.0, 8.0), help="shortest, longest seconds between")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments and victims")
    options = parser.parse_args(arguments)

    def command() -> int:
        with tempfile.TemporaryDirectory() as folder:
            quiet, disturbed = Path(folder, "quiet"), Path(folder, "disturbed")
            sweep = [sys.executable, "-m", "benchmarks", "reproduce", options.table, "--scale", options.scale]
            sweep += ["--seeds", str(options.seeds), "--jobs", "2", "--set", "run.wandb=disabled"]
            sweep += ["--set", "run.checkpoint_seconds=0"]
            began = time.monotonic()
            undisturbed([*sweep, "--results", str(quiet)])
            runs = len(list(quiet.glob("runs/*/*/*/*/result.json")))
            print(f"undisturbed: {runs} runs in {time.monotonic() - began:.0f} s", flush=True)
            chance = random.Random(options.seed)
            done = disturb([*sweep, "--results", str(disturbed)], disturbed, options.kills, options.pauses, chance)
            found = differences(quiet, disturbed)
        print(
            f"disturbed: {done.killed.count('worker')} workers and {done.killed.count('driver')} drivers killed, "
            f"{done.seconds:.0f} s; {len(found)} differences, {len(done.rewritten)} records written twice, "
            f"{done.orphans} processes left over"
        )
        for line in (*found, *map(str, done.rewritten)):
            print(f"error: {line}", file=sys.stderr)
        well = not found and not done.rewritten and not done.orphans and len(done.killed) == options.kills
        return EXIT_DONE if well else EXIT_RUNS_FAILED

    sys.exit(guarded(command))
