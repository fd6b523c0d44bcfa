"""Write a video of a finished run of view synthesis: the scene along a circle around it or a spiral in front of it."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.commands.options import add_config_dir, command_parser
from benchmarks.errors import ConfigError
from benchmarks.utils.exits import EXIT_DONE, guarded


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `python -m benchmarks video`."""
    options = make_parser().parse_intermixed_args(arguments)
    sys.exit(guarded(lambda: run(options)))


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's options."""
    parser = command_parser("video", __doc__ or "", "video lego.gif task=blender_lego model=nerf rule=dfa")
    parser.add_argument("file", type=Path, help="the GIF to write, or MP4, which needs the package imageio-ffmpeg")
    parser.add_argument("overrides", nargs="*", help="those that the run was trained with, task=… model=… rule=… …")
    add_config_dir(parser)
    return parser


def run(options: argparse.Namespace) -> int:
    """Write the video; return the exit code."""
    if "=" in options.file.name:
        raise ConfigError(f"the first argument is the file to write, got '{options.file}'; see --help")
    from benchmarks.families.view_synthesis.video import make_video

    print(f"written: {options.file} ({make_video(options.file, options.overrides)} frames)")
    return EXIT_DONE
