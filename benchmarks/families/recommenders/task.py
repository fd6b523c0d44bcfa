"""Task of click prediction: binary cross-entropy loss, AUC and log loss as metrics."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from typing_extensions import Unpack

from benchmarks.errors import ConfigError
from benchmarks.families.recommenders.criteo.load import (
    load_criteo,
    load_stand_in,
)
from benchmarks.families.recommenders.data import Batch, ClickLog, LoadedLog, batches, epoch_order, random_split
from benchmarks.families.recommenders.movielens import load_movielens
from benchmarks.registry import TASKS
from benchmarks.task import DataInfo, Task, constant_predictions, cut_rows

ALIGNMENT_ROWS = 512
SAME_LOGIT = 1e-6
"""Largest difference between two logits that counts as none."""


class ClickTask(Task):
    """Click prediction from categorical ids.

    Args:
        log: all rows.
        info: name, kind, checksums and notes of the data.
        seed: determines the order of batches and the rows for alignment.
        split_seed: determines the 80 / 10 / 10 % split.
        batch_size: rows per training batch.
        evaluation_batch: rows per evaluation batch.
        shuffle: whether to shuffle in every epoch; the published runs kept the order of the split.

    Raises:
        ConfigError: a batch size is out of range.
        DataError: the log has fewer than 10 rows.
    """

    metric = "auc"
    higher_is_better = True

    def __init__(
        self,
        log: ClickLog,
        info: DataInfo,
        seed: int = 0,
        split_seed: int = 42,
        batch_size: int = 2048,
        evaluation_batch: int = 8192,
        shuffle: bool = True,
    ) -> None:
        if batch_size < 2 or evaluation_batch < 1:
            raise ConfigError("batch_size must be at least 2 (batch normalisation) and evaluation_batch at least 1")
        self.log, self.info = log, info
        self.split = random_split(len(log), split_seed)
        self.seed, self.batch_size, self.evaluation_batch, self.shuffle = seed, batch_size, evaluation_batch, shuffle
        self.device = torch.device("cpu")
        chosen = np.random.default_rng([seed, 0]).permutation(len(self.split.train))[:ALIGNMENT_ROWS]
        self._alignment = log.take(self.split.train[chosen])

    def model_options(self) -> dict[str, Any]:
        """Return the number of ids of each field."""
        return {"field_sizes": self.log.field_sizes}

    def to(self, device: torch.device) -> None:
        """Move batches to `device` from now on."""
        self.device = device
        self._alignment = self._move(self._alignment)

    def steps_per_epoch(self) -> int:
        """Return the number of training batches; a last batch of one row is left out."""
        full, rest = divmod(len(self.split.train), self.batch_size)
        # Batch normalisation cannot train on a single row.
        return full + (rest > 1)

    def train_batches(self, epoch: int, skip: int = 0) -> Iterator[Batch]:
        """Yield batches of ids (batch, fields) and labels (batch,), without the first `skip`."""
        order = epoch_order(self.split.train, self.seed, epoch, self.shuffle)
        order = order[: self.steps_per_epoch() * self.batch_size]
        for batch in batches(self.log, order, self.batch_size, skip):
            yield self._move(batch)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the mean binary cross-entropy in nats."""
        ids, labels = batch
        return binary_cross_entropy_with_logits(model(ids), labels)

    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        """Return the metrics of all rows of a split, see `click_metrics`."""
        rows = np.sort(self.split.part(split))  # in file order, so that fewer memory-mapped pages are read
        logits, labels = [], []
        for ids, clicked in batches(self.log, rows, self.evaluation_batch):
            logits.append(model(ids.to(self.device)).float().cpu())
            labels.append(clicked)
        return click_metrics(torch.cat(logits), torch.cat(labels))

    def alignment_loss(self, model: nn.Module) -> Tensor:
        """Return the loss on `ALIGNMENT_ROWS` training rows, drawn by the seed."""
        return self.loss(model, self._alignment)

    def share(self, batch: Batch, rank: int, world: int) -> tuple[Batch, float]:
        """Return the rows of process `rank` and their share of the batch."""
        rows, weight = cut_rows(len(batch[1]), rank, world)
        return (batch[0][rows], batch[1][rows]), weight

    def _move(self, batch: Batch) -> Batch:
        if self.device.type == "cpu":
            return batch
        ids, labels = (part.pin_memory() if part.device.type == "cpu" else part for part in batch)
        return ids.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)


def click_metrics(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Return exact AUC, log loss (nats) and `constant_predictions` of logits (n,) for labels (n,) of 0 and 1.

    AUC and log loss are NaN if a logit is not finite; the AUC is NaN if all labels are equal.
    """
    from sklearn.metrics import roc_auc_score  # takes as long as torch, and training needs none

    if not torch.isfinite(logits).all():
        return {"auc": float("nan"), "log_loss": float("nan")}
    log_loss = binary_cross_entropy_with_logits(logits.double(), labels.double()).item()
    one_class = labels.min() == labels.max()
    auc = float("nan") if one_class else float(roc_auc_score(labels.numpy(), logits.numpy()))
    return {"auc": auc, "log_loss": log_loss, **constant_predictions(logits, SAME_LOGIT)}


class ClickOptions(TypedDict, total=False):
    """Options that every task of this family has.

    Attributes:
        batch_size, evaluation_batch, shuffle, split_seed: see `ClickTask`.
        stand_in_rows, stand_in_vocabulary, stand_in_seed: size and seed of the stand-in log.
    """

    batch_size: int
    evaluation_batch: int
    shuffle: bool
    split_seed: int
    stand_in_rows: int
    stand_in_vocabulary: int
    stand_in_seed: int


@TASKS.register("criteo")
def criteo(
    *,
    seed: int,
    source: str,
    data_dir: Path,
    download: bool = False,
    hugging_face: str = "",
    min_count: int = 10,
    max_malformed: float = 0.001,
    **options: Unpack[ClickOptions],
) -> ClickTask:
    """Build the task of Criteo's log.

    Args:
        seed: see `ClickTask`.
        source: "real" or "stand_in".
        data_dir: folder of the data sets.
        download: whether to fetch missing data.
        hugging_face: data set on the Hugging Face hub, or a local folder in its layout, to read instead of the text
            file.
        min_count: values that occur less often in a field share its rare id.
        max_malformed: greatest share of malformed rows.
        options: see `ClickOptions`.
    """
    load = partial(load_criteo, data_dir, hugging_face=hugging_face, min_count=min_count, max_malformed=max_malformed)
    real = partial(load, download=download) if source == "real" else None
    return _click_task("criteo", real, seed, min_count, **options)


@TASKS.register("click_log")
def click_log(
    *,
    seed: int,
    source: str,
    data_dir: Path,
    download: bool = False,
    min_count: int = 10,
    **options: Unpack[ClickOptions],
) -> ClickTask:
    """Build the task of the stand-in log, see `criteo`; there are no real data."""
    return _click_task("click_log", None, seed, min_count, **options)


def movielens(
    size: str,
    *,
    seed: int,
    source: str,
    data_dir: Path,
    download: bool = False,
    **options: Unpack[ClickOptions],
) -> ClickTask:
    """Build the task of MovieLens-1M or -100k, whose `size` is "1m" or "100k"; see `criteo`."""
    real = partial(load_movielens, size, data_dir, download) if source == "real" else None
    return _click_task(f"movielens_{size}", real, seed, **options)


def _click_task(
    name: str,
    load_real: Callable[[], LoadedLog] | None,
    seed: int,
    min_count: int = 10,
    *,
    split_seed: int = 42,
    stand_in_rows: int = 150_000,
    stand_in_vocabulary: int = 2000,
    stand_in_seed: int = 0,
    **batching: Any,
) -> ClickTask:
    """Build a task of a real log or, without `load_real`, of its stand-in."""
    if load_real is None:
        loaded = load_stand_in(stand_in_rows, stand_in_vocabulary, stand_in_seed, split_seed, min_count)
    else:
        loaded = load_real()
    info = DataInfo(loaded.name or name, "real" if loaded.name else "stand-in", loaded.checksums, loaded.notes)
    return ClickTask(loaded.log, info, seed, split_seed, **batching)


for _size in ("1m", "100k"):
    TASKS.register(f"movielens_{_size}")(partial(movielens, _size))
