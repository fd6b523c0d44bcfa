"""Text from a trained model:  python scripts/sample_text.py RUN_FOLDER --prompt "the"

Prints the prompt and what the model makes of it. The run has to be finished.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
import yaml
from torch import Tensor, nn

from benchmarks.commands import EXIT_DONE, guarded
from benchmarks.config import Config, from_dict
from benchmarks.errors import ConfigError, ResultsError
from benchmarks.language.task import LanguageModelling
from benchmarks.records import RunFolder
from benchmarks.restore import restore


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `scripts/sample_text.py`."""
    options = make_parser().parse_args(arguments)

    def command() -> int:
        print(sample_text(options.run, options.prompt, options.tokens, options.temperature, options.seed))
        return EXIT_DONE

    sys.exit(guarded(command))


def make_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = argparse.ArgumentParser(prog="sample_text", description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a finished run, as training prints it")
    parser.add_argument("--prompt", default="", help="how the text begins (default: a new line)")
    parser.add_argument("--tokens", type=int, default=60, help="tokens to add (default: 60)")
    parser.add_argument("--temperature", type=float, default=1.0, help="below 1: likelier words (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    return parser


def sample_text(run: Path, prompt: str, tokens: int, temperature: float, seed: int) -> str:
    """The prompt and `tokens` more tokens from the model of a finished run.

    Raises:
        ConfigError: the run is of another task, or an option is out of range.
        DataError: its text, or a word of the prompt, is not here.
        ResultsError: the folder holds no finished run.
    """
    if tokens < 1 or not temperature > 0:
        raise ConfigError(f"tokens and temperature must be positive, got {tokens} and {temperature}")
    config = _configuration(run)
    task, model = restore(config, RunFolder(run))
    if not isinstance(task, LanguageModelling):
        raise ConfigError(f"the run in {run} is of task '{config.task.name}', which is no text")
    device = next(model.parameters()).device
    corpus = task.corpus
    # Without a prompt the text begins as the validation text does: WikiText's with the end of a line.
    start = corpus.encode(prompt) or [int(corpus.ids["valid"][0])]
    torch.manual_seed(seed)
    ids = continuation(model, torch.tensor(start, device=device), tokens, task.window, temperature)
    return corpus.decode(ids.tolist())


def continuation(model: nn.Module, start: Tensor, tokens: int, window: int, temperature: float) -> Tensor:
    """`start` and `tokens` ids drawn one by one, each from the model's prediction after the last `window` ids."""
    ids = start
    with torch.no_grad():
        for _ in range(tokens):
            scores = model(ids[None, -window:])[0, -1].float()
            drawn = torch.multinomial((scores / temperature).softmax(dim=0), 1)
            ids = torch.cat([ids, drawn])
    return ids


def _configuration(run: Path) -> Config:
    if RunFolder(run).read() is None:
        raise ResultsError(f"'{run}' holds no finished run")
    try:
        return from_dict(yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError) as error:
        raise ResultsError(f"'{run}' has no readable configuration: {error}") from None
