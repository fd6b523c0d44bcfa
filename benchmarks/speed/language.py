"""Time, loss and memory of training steps of the paper's Transformer under each rule.

    python -m benchmarks bench language --columns 8 --steps 20 --out results/bench/language_steps.json

Tokens are random, so no data are needed. A step is forward, backward, clipping and Adam on columns × 128 tokens; 8
columns are one of the 8 groups over which the paper's batch of 8,192 tokens is accumulated. The rules take turns, one
step each, in one process; memory is measured in a process for each. `torch` is a plain loop around
nn.TransformerEncoder.
"""

import math
import statistics
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.config import Config, compose_config, resolve
from benchmarks.errors import ConfigError
from benchmarks.families.language.models import INITIAL_RANGE, Embedding, Transformer
from benchmarks.run.build import build_rule, find_device
from benchmarks.run.optim import make_optimizer
from benchmarks.speed.measure import in_subprocess, seconds_of
from benchmarks.utils.machine import PeakMemory, device_name, keep_freed_memory, versions

RULES = {
    "torch": ("transformer_macro", "bp"),
    "bp": ("transformer_macro", "bp"),
    "macro": ("transformer_macro", "dfa"),
    "micro": ("transformer_micro", "dfa"),
    "shallow": ("transformer_macro", "shallow"),
}
Measurement = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """Setting of a measurement.

    Attributes:
        columns, window: a step has columns × window tokens.
        vocabulary: number of different tokens.
        device: e.g. "cpu".
        precision: "float32" or "bfloat16".
        compiled: whether to use torch.compile.
        options: (name, value) pairs that replace options of the paper's model.
    """

    columns: int = 8
    window: int = 128
    vocabulary: int = 32_000
    device: str = "cpu"
    precision: str = "float32"
    compiled: bool = False
    options: tuple[tuple[str, Any], ...] = ()


class PlainTransformer(nn.Module):
    """Reference written without this project: PyTorch's encoder layers with a causal mask."""

    def __init__(self, model: Transformer, options: dict[str, Any]) -> None:
        super().__init__()
        width, dropout = options["width"], options["dropout"]
        vocabulary, window = model.decoder.out_features, model.embedding.positions.shape[0]
        layer = nn.TransformerEncoderLayer(width, options["heads"], options["hidden"], dropout, batch_first=True)
        self.embedding = Embedding(vocabulary, window, width, dropout)
        self.encoder = nn.TransformerEncoder(layer, options["blocks"])
        self.decoder = nn.Linear(width, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map token ids (columns, length) to scores (columns, length, vocabulary)."""
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1], device=tokens.device)
        return self.decoder(self.encoder(self.embedding(tokens), mask=mask, is_causal=True))


class Candidate:
    """Model, rule and optimiser of one entry of `RULES`."""

    def __init__(self, name: str, setting: Setting) -> None:
        config = _configuration(name)
        options = config.model.options | dict(setting.options)
        torch.manual_seed(0)
        model: nn.Module = Transformer(setting.vocabulary, setting.window, **options)
        if name == "torch":
            model = PlainTransformer(model, options)  # type: ignore[arg-type]
            config.model.points, config.model.error_at = [], [""]
        self.model = model.to(setting.device)
        self.rule = build_rule(config, self.model)
        self.optimizer = make_optimizer(config.optimizer, self.model)
        self.forward = torch.compile(self.model) if setting.compiled else self.model
        self.clip = config.trainer.clip_norm or math.inf
        self.setting = setting

    def step(self, batch: Tensor) -> float:
        """Make one optimiser step on `batch`, token ids (columns, window + 1); return the loss before it."""
        reduced = self.setting.precision == "bfloat16"
        with torch.autocast(batch.device.type, torch.bfloat16) if reduced else nullcontext():
            loss = F.cross_entropy(self.forward(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
        self.rule.backward(loss)
        nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.item()


def bench(names: Sequence[str], setting: Setting, steps: int, memory: bool = True) -> Measurement:
    """Measure `steps` training steps under each rule.

    Args:
        names: keys of `RULES`.
        setting: what a step is.
        steps: number of steps of each rule; the first is not timed if there are several.
        memory: whether to measure peak memory too, in a process for each rule.

    Returns:
        The setting, the machine, and under `rules` for each name median step time in seconds, its ratio to `bp`, tokens
        per second, first and last loss, and peak memory in MB.

    Raises:
        ConfigError: unknown rule or device.
        ResultsError: a process that measures memory was killed.
    """
    if not names or (unknown := [name for name in names if name not in RULES]):
        given = f"unknown rule '{unknown[0]}'" if names else "no rule given"
        raise ConfigError(f"{given}; known: {', '.join(RULES)}")
    device = find_device(setting.device)
    keep_freed_memory()
    torch.set_num_threads(1)
    candidates = {name: Candidate(name, setting) for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    losses: dict[str, list[float]] = {name: [] for name in names}
    for step in range(steps):
        batch = _batch(setting, step)
        for name, candidate in candidates.items():
            seconds[name].append(seconds_of(partial(_note_loss, losses[name], candidate, batch), device))
    tokens = setting.columns * setting.window
    median = {name: statistics.median(found[1:] or found) for name, found in seconds.items()}
    rules = {
        name: {
            "seconds_per_step": median[name],
            "ratio_to_bp": median[name] / median["bp"] if "bp" in median else None,
            "tokens_per_second": tokens / median[name],
            "first_loss": losses[name][0],
            "last_loss": losses[name][-1],
            "finite": all(map(math.isfinite, losses[name])),
            "peak_memory_mb": in_subprocess(partial(peak_memory, name, setting), name) if memory else None,
        }
        for name in names
    }
    description = {"device": device_name(device), "versions": versions(), "threads": 1}
    expected = expected_first_loss(setting.vocabulary, _configuration("bp").model.options["width"])
    return {**asdict(setting), **description, "steps": steps, "expected_first_loss": expected, "rules": rules}


def expected_first_loss(vocabulary: int, width: int) -> float:
    """Return the mean cross-entropy before training in nats: log(vocabulary) + width · r² / 6, r the initial range.

    The last LayerNorm makes the squared norm of the decoder's input equal to the width. Decoder weights uniform in ±r
    have variance r² / 3, so scores are close to normal with mean 0 and variance v = width · r² / 3. The mean of their
    exponentials is e^(v/2), hence the loss is log(vocabulary · e^(v/2)).
    """
    return math.log(vocabulary) + width * INITIAL_RANGE**2 / 6


def _configuration(name: str) -> Config:
    model, rule = RULES[name]
    return resolve(compose_config(["task=wikitext103", f"model={model}", f"rule={rule}", "schedule=constant"]))


def _batch(setting: Setting, step: int) -> Tensor:
    generator = torch.Generator().manual_seed(step)
    shape = (setting.columns, setting.window + 1)
    return torch.randint(setting.vocabulary, shape, generator=generator).to(setting.device)


def _note_loss(losses: list[float], candidate: Candidate, batch: Tensor) -> None:
    losses.append(candidate.step(batch))


def peak_memory(name: str, setting: Setting) -> float:
    """Return the peak memory of two steps in MB; the second step has the optimiser's state allocated."""
    torch.set_num_threads(1)
    memory = PeakMemory(torch.device(setting.device))
    candidate = Candidate(name, setting)
    for step in range(2):
        candidate.step(_batch(setting, step))
    return memory.megabytes()
