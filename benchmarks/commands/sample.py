"""Print a prompt and what a trained language model adds to it."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.commands.options import command_parser
from benchmarks.families.language.sample import sample_text
from benchmarks.utils.exits import EXIT_DONE, guarded


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `python -m benchmarks sample`."""
    options = make_parser().parse_args(arguments)

    def command() -> int:
        print(sample_text(options.run, options.prompt, options.tokens, options.temperature, options.seed))
        return EXIT_DONE

    sys.exit(guarded(command))


def make_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = command_parser("sample", __doc__ or "", 'sample results/runs/wikitext2/… --prompt "the"')
    parser.add_argument("run", type=Path, help="folder of a finished run, as training prints it")
    parser.add_argument("--prompt", default="", help="how the text begins (default: a new line)")
    parser.add_argument("--tokens", type=int, default=60, help="tokens to add (default: 60)")
    parser.add_argument("--temperature", type=float, default=1.0, help="below 1: likelier words (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    return parser
