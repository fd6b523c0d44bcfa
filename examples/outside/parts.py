"""A plug-in with a task, a model and a rule that the suite does not know."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import dfa
from benchmarks.errors import ConfigError
from benchmarks.registry import MODELS, TASKS
from benchmarks.task import DataInfo, Task, cut_rows

Batch = tuple[Tensor, Tensor]


@TASKS.register("digits")
class Digits(Task):
    """Handwritten digits of 8 × 8 pixels from scikit-learn: 1,000 to train, 300 to validate, 497 to test."""

    metric = "accuracy"

    def __init__(self, seed: int, source: str, data_dir: Path, download: bool, batch_size: int = 50) -> None:
        if source != "real":
            raise ConfigError("task 'digits' has no stand-in: its data come with scikit-learn")
        digits = load_digits()
        pixels = torch.tensor(digits.data / 16, dtype=torch.float32)
        labels = torch.tensor(digits.target)
        # The split is the same for every seed; the seed shuffles batches and initialises the model.
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
        parts = dict(zip(("train", "valid", "test"), order.split([1000, 300, 497]), strict=True))
        self.splits = {name: (pixels[rows], labels[rows]) for name, rows in parts.items()}
        self.seed = seed
        self.batch_size = batch_size
        self.info = DataInfo("digits", "real", notes={"pictures": len(labels)})

    def model_options(self) -> dict[str, Any]:
        """Tell the model its numbers of inputs and outputs."""
        return {"in_features": 64, "classes": 10}

    def steps_per_epoch(self) -> int:
        """Count the batches of an epoch."""
        return -(-len(self.splits["train"][1]) // self.batch_size)

    def train_batches(self, epoch: int, skip: int = 0) -> Iterable[Batch]:
        """Shuffle by seed and epoch, so that a resumed run sees the same batches."""
        pixels, labels = self.splits["train"]
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(1000 * self.seed + epoch))
        for rows in order.split(self.batch_size)[skip:]:
            yield pixels[rows], labels[rows]

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Compute the cross-entropy of a batch of (rows, 64) pixels and (rows,) labels."""
        pixels, labels = batch
        return cross_entropy(model(pixels), labels)

    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        """Compute accuracy and cross-entropy on a split."""
        pixels, labels = self.splits[split]
        scores = model(pixels)
        return {
            "accuracy": (scores.argmax(dim=1) == labels).double().mean().item(),
            "log_loss": cross_entropy(scores, labels).item(),
        }

    def share(self, batch: Batch, rank: int, world: int) -> tuple[Batch, float]:
        """Cut a batch by rows."""
        rows, weight = cut_rows(len(batch[1]), rank, world)
        return (batch[0][rows], batch[1][rows]), weight


@MODELS.register("digit_mlp")
def digit_mlp(in_features: int, classes: int, hidden: int = 64, layers: int = 3) -> nn.Sequential:
    """Build a perceptron whose activations are called `0.act`, `1.act`, …: its feedback points."""

    def block(width: int) -> nn.Sequential:
        part = nn.Sequential()
        part.add_module("linear", nn.Linear(width, hidden))
        part.add_module("act", nn.Tanh())
        return part

    blocks = [block(in_features if depth == 0 else hidden) for depth in range(layers)]
    return nn.Sequential(*blocks, nn.Linear(hidden, classes))


@dfa.RULES.register("sparse_dfa")
class SparseErrorFeedback(dfa.DirectFeedbackAlignment):
    """DFA that sends only the large components of the error."""

    name = "sparse_dfa"

    def signals(self, error_name: str, error: Tensor, points: Sequence[Any]) -> Iterable[Tensor]:
        """Project the components of at least half the size of each row's largest one."""
        large = error.abs() >= 0.5 * error.abs().amax(dim=-1, keepdim=True)
        return super().signals(error_name, error * large, points)
