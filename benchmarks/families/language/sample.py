"""Sampling of text from a trained language model."""

from pathlib import Path

import torch
import yaml
from torch import Tensor, nn

from benchmarks.config import Config, from_dict
from benchmarks.errors import ConfigError, ResultsError
from benchmarks.families.language.task import LanguageModelling
from benchmarks.run.build import restore
from benchmarks.run.records import RunFolder


def sample_text(run: Path, prompt: str, tokens: int, temperature: float, seed: int) -> str:
    """Continue a prompt with the model of a finished run.

    Args:
        run: folder of the run.
        prompt: beginning of the text; if empty, the first token of the validation text.
        tokens: number of tokens to draw.
        temperature: divisor of the scores before the softmax.
        seed: determines the draws.

    Returns:
        The prompt and its continuation.

    Raises:
        ConfigError: the run is of another task, or an option is out of range.
        DataError: the run's text is missing, or the stand-in's vocabulary lacks a word of the prompt.
        ResultsError: the folder holds no finished run.
    """
    if tokens < 1 or not temperature > 0:
        raise ConfigError(f"tokens and temperature must be positive, got {tokens} and {temperature}")
    config = _configuration(run)
    task, model = restore(config, RunFolder(run))
    if not isinstance(task, LanguageModelling):
        raise ConfigError(f"the run in {run} is of task '{config.task.name}', which is not a language task")
    device = next(model.parameters()).device
    corpus = task.corpus
    start = corpus.encode(prompt) or [int(corpus.ids["valid"][0])]
    torch.manual_seed(seed)
    ids = continuation(model, torch.tensor(start, device=device), tokens, task.window, temperature)
    return corpus.decode(ids.tolist())


def continuation(model: nn.Module, start: Tensor, tokens: int, window: int, temperature: float) -> Tensor:
    """Draw tokens one by one, each from the model's prediction after the last `window` tokens.

    Returns:
        `start` (n,) followed by the drawn ids, (n + tokens,).
    """
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
