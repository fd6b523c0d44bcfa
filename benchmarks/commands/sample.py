"""Print a prompt and what a trained language model adds to it."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.commands.options import add_config_dir, command_parser, positive
from benchmarks.utils.exits import EXIT_DONE, guarded


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `python -m benchmarks sample`."""
    options = make_parser().parse_args(arguments)
    sys.exit(guarded(lambda: run(options)))


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command's options."""
    parser = command_parser("sample", __doc__ or "", 'sample results/runs/wikitext2/… --prompt "the"')
    parser.add_argument("run", type=Path, help="folder of a finished run, as training prints it")
    parser.add_argument("--prompt", default="", help="how the text begins (default: a new line)")
    parser.add_argument("--tokens", type=positive, default=60, help="tokens to add (default: 60)")
    parser.add_argument("--temperature", type=float, default=1.0, help="below 1: likelier words (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    parser.add_argument(
        "--plugin",
        action="append",
        default=[],
        metavar="FILE",
        help="code of yours that the run needs; only this is run",
    )
    add_config_dir(parser)
    return parser


def run(options: argparse.Namespace) -> int:
    """Print the text; return the exit code."""
    from benchmarks.families.language.sample import sample_text

    chosen = options.prompt, options.tokens, options.temperature, options.seed
    print(sample_text(options.run, *chosen, options.plugin))
    return EXIT_DONE
