"""Evaluate a radiance field that the paper's authors released, on the test views of its scene.

Only tensors are read from the checkpoint. The models were trained with rays through the corners of pixels
(task.options.pixel_centre=0) of pictures 800 wide; +task.options.pixel_step=8 evaluates one pixel in 64.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.commands.options import add_config_dir, command_parser
from benchmarks.utils.exits import EXIT_DONE, guarded
from benchmarks.utils.files import write_result


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `python -m benchmarks released`."""
    options = make_parser().parse_intermixed_args(arguments)
    sys.exit(guarded(lambda: run(options)))


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's options."""
    parser = command_parser("released", __doc__ or "", "released synth_lego_dfa.ckpt task=blender_lego scale=paper")
    parser.add_argument("file", type=Path, help="a released checkpoint")
    parser.add_argument("overrides", nargs="*", help="task=blender_lego and further overrides")
    parser.add_argument("--out", type=Path, help="JSON file to write, e.g. results/released/lego_800.json")
    add_config_dir(parser)
    return parser


def run(options: argparse.Namespace) -> int:
    """Evaluate the model and print its metrics; return the exit code."""
    from benchmarks.families.view_synthesis.released import evaluate_released

    found = evaluate_released(options.file, options.overrides)
    if options.out is not None:
        write_result(options.out, json.dumps(found, indent=1) + "\n")
    for name, value in found["metrics"].items():
        print(f"  {name:19} {value:.4f}")
    print(f"  {found['seconds']:.0f} s")
    return EXIT_DONE
