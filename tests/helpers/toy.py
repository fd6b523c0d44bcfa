"""A plug-in with a task, a model and a rule of its own, as a user would write one: `plugins: [tests/toy.py]`.

The environment makes it misbehave: TOY_FAULT="kind@n" strikes before the n-th batch of a process, where kind is
    raise (an exception), leave (a BaseException, as if the process had ended), exit (os._exit), memory (none is left),
    nan, or signals, "SIGTERM" or "SIGTERM+SIGUSR2", which the process sends itself.
TOY_FAULT_SEED limits it to runs of one seed; TOY_FAULT_ONCE names a file whose presence switches it off.
TOY_PAUSE makes every batch take so many seconds.
"""

import os
import signal
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from benchmarks.errors import DataError
from benchmarks.registry import MODELS, TASKS
from benchmarks.task import DataInfo, Task, cut_rows
from dfa import RULES, Backpropagation

Batch = tuple[Tensor, Tensor]


class Left(BaseException):
    """The process ends here, as far as the runner can tell."""


@TASKS.register("toy")
class Toy(Task):
    """Three overlapping clouds in eight dimensions, in shuffled batches."""

    metric = "accuracy"

    def __init__(
        self,
        seed: int,
        source: str,
        data_dir: Path,
        download: bool,
        samples: int = 60,
        batch_size: int = 12,
        file: str = "",
        worse: bool = False,
    ) -> None:
        if source == "real" and file and not (data_dir / file).exists():
            raise DataError(f"no data at {data_dir / file}; place them there")
        self.seed, self.samples, self.batch_size, self.worse = seed, samples, batch_size, worse
        self.info = DataInfo("toy", "real" if source == "real" else "stand-in")
        generator = torch.Generator().manual_seed(1)
        centres = torch.randn(3, 8, generator=generator)
        labels = torch.arange(3 * samples) % 3
        inputs = centres[labels] + 1.5 * torch.randn(3 * samples, 8, generator=generator)
        parts = (slice(0, samples), slice(samples, 2 * samples), slice(2 * samples, None))
        self.data = {
            name: (inputs[part], labels[part]) for name, part in zip(("train", "valid", "test"), parts, strict=True)
        }
        self.batches_seen = 0

    def model_options(self) -> dict[str, Any]:
        return {"in_features": 8, "classes": 3, "not_for_this_model": None}

    def steps_per_epoch(self) -> int:
        return -(-self.samples // self.batch_size)

    def train_batches(self, epoch: int, skip: int = 0) -> Iterator[Batch]:
        inputs, labels = self.data["train"]
        order = torch.randperm(self.samples, generator=torch.Generator().manual_seed(1000 * self.seed + epoch))
        for rows in list(order.split(self.batch_size))[skip:]:
            yield inputs[rows], labels[rows]

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        self.batches_seen += 1
        time.sleep(float(os.environ.get("TOY_PAUSE", "0")))
        fault = _fault(self.batches_seen, self.seed)
        inputs, labels = batch
        return nn.functional.cross_entropy(model(inputs), labels) * (float("nan") if fault == "nan" else 1.0)

    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        assert not model.training and not torch.is_grad_enabled()
        inputs, labels = self.data[split]
        outputs = model(inputs).float()
        if self.worse and split == "valid":  # falls as the weights grow
            return {"accuracy": 1 / sum(parameter.norm().item() for parameter in model.parameters()), "log_loss": 1.0}
        return {
            "accuracy": (outputs.argmax(1) == labels).double().mean().item(),
            "log_loss": nn.functional.cross_entropy(outputs, labels).item(),
        }

    def alignment_loss(self, model: nn.Module) -> Tensor:
        inputs, labels = self.data["valid"]
        return nn.functional.cross_entropy(model(inputs), labels)

    def share(self, batch: Batch, rank: int, world: int) -> tuple[Batch, float]:
        rows, weight = cut_rows(len(batch[1]), rank, world)
        return (batch[0][rows], batch[1][rows]), weight


@TASKS.register("toy_loss")
class ToyLoss(Toy):
    """The same with the loss as its selection metric, and no alignment."""

    metric = "log_loss"
    higher_is_better = False
    alignment_loss = Task.alignment_loss


def _fault(batch: int, seed: int) -> str:
    kind, _, when = os.environ.get("TOY_FAULT", "never@0").partition("@")
    once = os.environ.get("TOY_FAULT_ONCE", "")
    if batch != int(when) or str(seed) != os.environ.get("TOY_FAULT_SEED", str(seed)) or (once and Path(once).exists()):
        return ""
    if once:
        Path(once).touch()
    if kind == "raise":
        raise ZeroDivisionError("the toy is broken")
    if kind == "leave":
        raise Left
    if kind == "exit":
        os._exit(3)
    if kind == "memory":
        raise MemoryError
    for name in kind.split("+") if kind != "nan" else ():
        os.kill(os.getpid(), signal.Signals[name])
    return kind


class Block(nn.Module):
    """Linear, batch norm if asked for, activation, dropout."""

    def __init__(self, in_features: int, out_features: int, dropout: float, norm: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features)
        self.norm = nn.BatchNorm1d(out_features) if norm else nn.Identity()
        self.act = nn.Tanh()
        self.dropout = nn.Dropout(dropout)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.dropout(self.act(self.norm(self.linear(inputs))))


@MODELS.register("toy_mlp")
class ToyMlp(nn.Module):
    """Two hidden layers, `blocks.0.act` and `blocks.1.act`."""

    def __init__(
        self,
        in_features: int,
        classes: int,
        hidden: int = 16,
        dropout: float = 0.0,
        norm: bool = False,
        output: Literal["scores", "detached", "decisions"] = "scores",
    ) -> None:
        super().__init__()
        sizes = (in_features, hidden, hidden)
        self.blocks = nn.Sequential(*(Block(below, above, dropout, norm) for below, above in pairwise(sizes)))
        self.unused = nn.Identity()
        self.output = nn.Linear(hidden, classes)
        self.kind = output

    def forward(self, inputs: Tensor) -> Tensor:
        scores = self.output(self.blocks(inputs))
        if self.kind == "decisions":
            return nn.functional.one_hot(scores.argmax(1), scores.shape[1]).float()
        return scores.detach() if self.kind == "detached" else scores


@RULES.register("toy_opposite")
class Opposite(Backpropagation):
    """Climbs the loss instead of descending it."""

    name = "toy_opposite"

    def backward(self, loss: Tensor) -> None:
        super().backward(-loss)
