"""Interface between the runner and a task."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from benchmarks.errors import ConfigError
from benchmarks.utils.metrics import CONSTANT

KINDS = ("real", "stand-in")
"""Kinds of data: what others have collected, and what this project generates."""


@dataclass(frozen=True)
class DataInfo:
    """Description of the data that a run was trained on.

    Attributes:
        name: data set, e.g. "cora".
        kind: one of `KINDS`.
        checksums: file name → sha256 of the files read (empty for a generated stand-in).
        notes: facts worth a line under a table, e.g. the best accuracy that a stand-in allows.
    """

    name: str
    kind: str
    checksums: dict[str, str] = field(default_factory=dict)
    notes: dict[str, float | str] = field(default_factory=dict)


class Task(ABC):
    """Data, loss and metrics of one problem; knows neither models nor rules.

    Attributes:
        metric: the entry of `evaluate` that selects the best epoch on the validation split.
        higher_is_better: which way that metric improves.
        info: what the data are.
    """

    metric: ClassVar[str]
    higher_is_better: ClassVar[bool] = True
    info: DataInfo

    @abstractmethod
    def model_options(self) -> dict[str, Any]:
        """Return what a model must know of the data, e.g. `{"in_channels": 1433, "num_classes": 7}`."""

    def to(self, device: torch.device) -> None:  # noqa: B027  (most tasks have nothing to move)
        """Move whatever lives on a device for the whole run; by default nothing does."""

    @abstractmethod
    def steps_per_epoch(self) -> int:
        """Return the number of training batches in an epoch."""

    @abstractmethod
    def train_batches(self, epoch: int, skip: int = 0) -> Iterable[Any]:
        """Iterate over an epoch's batches without the first `skip`, a pure function of seed and epoch (from 1)."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """Compute the training loss of a batch, a scalar."""

    @abstractmethod
    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        """Compute metrics on "valid" or "test"; the runner has set evaluation mode and disabled gradients.

        A task adds `constant_predictions` to its metrics, so that a model that has died is seen.
        """

    def alignment_loss(self, model: nn.Module) -> Tensor:
        """Compute the loss of the fixed batch on which alignment is measured; a task without one measures none."""
        raise NotImplementedError

    def share(self, batch: Any, rank: int, world: int) -> tuple[Any, float]:
        """Return the part of a batch that process `rank` of `world` trains on, and its weight in the loss of the whole.

        The weighted losses of all parts add up to the loss of the batch; a part may be empty, and weighs nothing then.

        Raises:
            ConfigError: the task's batches cannot be cut.
        """
        raise ConfigError(f"task '{self.info.name}' cannot be trained by {world} processes: its batches cannot be cut")


def constant_predictions(predictions: Tensor, tolerance: float = 0.0) -> dict[str, float]:
    """Return the metric that tells a dead model from a poor one: 1 if it predicts the same for every example, else 0.

    Args:
        predictions: (examples, ...), one or several numbers for each example.
        tolerance: largest difference between two examples that counts as none.
    """
    spread = (predictions.amax(dim=0) - predictions.amin(dim=0)).max()
    return {CONSTANT: float(spread <= tolerance)}


def cut_rows(rows: int, rank: int, world: int) -> tuple[slice, float]:
    """Return the rows of a batch for process `rank` of `world`, in parts as equal as possible, and their share."""
    part = slice(rows * rank // world, rows * (rank + 1) // world)
    return part, (part.stop - part.start) / rows
