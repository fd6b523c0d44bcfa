"""Sampling of text from a trained language model."""

from collections.abc import Sequence
from pathlib import Path

import torch
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor, nn

from benchmarks.config import Config, from_dict, identity
from benchmarks.errors import ConfigError, ResultsError
from benchmarks.families.language.task import LanguageModelling
from benchmarks.run.build import restore
from benchmarks.run.records import RunFolder
from benchmarks.utils.exits import one_line
from benchmarks.utils.paths import own_plugins
from benchmarks.utils.values import check_number
from benchmarks.utils.yaml_files import read_yaml


def sample_text(run: Path, prompt: str, tokens: int, temperature: float, seed: int, plugins: Sequence[str] = ()) -> str:
    """Continue a prompt with the model of a finished run.

    Args:
        run: folder of the run.
        prompt: beginning of the text; if empty, the first token of the validation text.
        tokens: number of tokens to draw.
        temperature: divisor of the scores before the softmax.
        seed: determines the draws.
        plugins: code to import, beside that of the user's own configuration folders. That of the run is not imported
            unless it is named here: it may be from someone else.

    Returns:
        The prompt and its continuation.

    Raises:
        ConfigError: the run is of another task, an option is out of range, or a plug-in of the run is not named.
        DataError: the run's text is missing, or the stand-in's vocabulary lacks a word of the prompt.
        ResultsError: the folder holds no finished run, or a configuration that is not its record's.
    """
    check_number("--temperature", temperature)
    if not 0 <= seed < 2**32:
        raise ConfigError(f"--seed must be from 0 to 2**32 - 1, got {seed}")
    config = _configuration(run, plugins)
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


def _configuration(run: Path, plugins: Sequence[str]) -> Config:
    """Read the configuration of a finished run, with the plug-ins that the user names in place of its own."""
    record = RunFolder(run).read()
    if record is None:
        raise ResultsError(f"'{run}' holds no finished run")
    if record["status"] != "done":
        raise ResultsError(f"'{run}' holds no run that ended well: {record['status']}, {record['reason']}")
    content = read_yaml(run / "config.yaml", f"the configuration of '{run}'")
    try:
        config = from_dict(content)
    except (OmegaConfBaseException, TypeError, ValueError, AssertionError) as error:
        raise ResultsError(f"'{run}' has no readable configuration: {one_line(error)}") from None
    if identity(config) != record["config_hash"]:
        raise ResultsError(f"'{run}' is damaged: its config.yaml is not the configuration that its record names")
    named = [*own_plugins(), *plugins]
    wanted = sorted({Path(plugin).name for plugin in config.plugins} - {Path(plugin).name for plugin in named})
    if wanted:
        raise ConfigError(f"the run in '{run}' was made with plug-ins; name them if you trust them: {_options(wanted)}")
    config.plugins = named
    return config


def _options(plugins: Sequence[str]) -> str:
    return " ".join(f"--plugin {plugin}" for plugin in plugins)
