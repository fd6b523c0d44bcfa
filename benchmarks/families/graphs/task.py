"""The two tasks on citation graphs: classifying nodes and predicting links."""

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn import GAE

from benchmarks.errors import ConfigError
from benchmarks.families.graphs import stand_in
from benchmarks.families.graphs.data import load_planetoid, public_split, to_graph
from benchmarks.families.graphs.links import sample_non_edges, split_links
from benchmarks.families.graphs.published import FOLDERS
from benchmarks.registry import TASKS
from benchmarks.task import DataInfo, Task, constant_predictions
from benchmarks.utils.values import check_known

FEATURES = ("normalised", "raw")
SPLITS = ("public", "folds", "random")
OUTPUTS = ("logits", "log_probabilities")
NOT_ONE = 0.1
"""Distance of a sum of probabilities from one that rounding, to bfloat16 too, does not explain."""
SAME_SCORE = 1e-6
"""Largest difference between two probabilities of a link that counts as none."""


class NodeClassification(Task):
    """Classify every paper of a citation graph from a few known ones; one full-batch step an epoch.

    Args:
        name: "cora", "citeseer" or "pubmed".
        seed: draws the folds and the random split; the public split is fixed.
        source: "real" or "stand_in".
        data_dir, download: where the real files are, and whether to fetch missing ones.
        split: "public" (20 known papers a class), "folds" (five stratified folds of all papers: the first trains, the
            second validates, three test) or "random" (the same five folds: three train, one validates, one tests).
        features: "normalised" (rows sum to one) or "raw".
        outputs: what the model returns, "logits" or "log_probabilities"; it decides what the error at the output is.
        nodes: size of the stand-in; 0 for its usual size.
        data_seed: which stand-in; the run's seed does not change the data.

    Raises:
        ConfigError: an option with an unknown value.
        DataError: see `load_planetoid`.
    """

    metric: ClassVar[str] = "accuracy"

    def __init__(
        self,
        name: str,
        *,
        seed: int,
        source: str,
        data_dir: Path,
        download: bool = False,
        split: str = "public",
        features: str = "normalised",
        outputs: str = "logits",
        nodes: int = 0,
        data_seed: int = 0,
    ) -> None:
        check_known("task option features", features, FEATURES)
        check_known("task option split", split, SPLITS)
        check_known("task option outputs", outputs, OUTPUTS)
        self.outputs = outputs
        if source == "stand_in":
            recipe = _recipe(name, nodes)
            tree = stand_in.generate(recipe, data_seed)
            data = tree.to_data()
            public = {key: torch.from_numpy(index) for key, index in stand_in.split(recipe, data_seed).items()}
        else:
            data, checksums = load_planetoid(name, data_dir, download)
            public = public_split(data)
        shares = (3, 1, 1) if split == "random" else (1, 1, 3)
        self.splits = public if split == "public" else stratified_folds(data.y, seed, shares)
        self.graph = to_graph(data, normalise=features == "normalised")
        self.num_classes = int(data.y.max()) + 1
        if source == "stand_in":
            self.num_classes = recipe.classes
            train, test = self.splits["train"].numpy(), self.splits["test"].numpy()
            best: dict[str, float | str] = {"bayes_accuracy": tree.bayes_accuracy(train, test)}
            self.info = DataInfo(name, "stand-in", notes=_sizes(data) | best)
        else:
            self.info = DataInfo(name, "real", checksums, notes=_sizes(data))

    def model_options(self) -> dict[str, Any]:
        return {"in_channels": self.graph.x.shape[1], "num_classes": self.num_classes}

    def to(self, device: torch.device) -> None:
        self.graph = self.graph.to(device)
        self.splits = {split: index.to(device) for split, index in self.splits.items()}

    def steps_per_epoch(self) -> int:
        return 1

    def train_batches(self, epoch: int, skip: int = 0) -> Iterable[Tensor]:
        """The numbers of the training nodes, every epoch the same."""
        return [self.splits["train"]][skip:]

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        """Mean cross-entropy over the nodes in `batch`."""
        out = self._forward(model)
        if self.outputs == "log_probabilities":
            _check_log_probabilities(out[batch])
            return F.nll_loss(out[batch], self.graph.y[batch])
        return F.cross_entropy(out[batch], self.graph.y[batch])

    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        nodes = self.splits[split]
        out = self._forward(model)[nodes]
        labels = self.graph.y[nodes]
        classes = out.argmax(dim=1)
        correct = (classes == labels).double().mean()
        loss = F.cross_entropy(out.float(), labels)
        return {"accuracy": float(correct), "loss": float(loss), **constant_predictions(classes)}

    def alignment_loss(self, model: nn.Module) -> Tensor:
        """The loss over all nodes, whatever the split."""
        return self.loss(model, torch.arange(self.graph.num_nodes, device=self.graph.y.device))

    def _forward(self, model: nn.Module) -> Tensor:
        out: Tensor = model(self.graph)
        if out.size(1) != self.num_classes:
            raise ConfigError(
                f"the model returns {out.size(1)} values a node, but {self.info.name} has {self.num_classes} classes;"
                " an encoder such as gae belongs to a *_links task"
            )
        return out


class LinkPrediction(Task):
    """Predict held-out citations from node embeddings (graph autoencoder); one full-batch step an epoch.

    The model is the encoder; the inner-product decoder and the reconstruction loss are PyG's. Every step contrasts the
    training edges with as many pairs drawn afresh.

    Args:
        name: "cora", "citeseer" or "pubmed".
        seed: draws the split and the negative pairs.
        Others as in `NodeClassification`.

    Raises:
        ConfigError, DataError: as there.
    """

    metric: ClassVar[str] = "auc"

    def __init__(
        self,
        name: str,
        *,
        seed: int,
        source: str,
        data_dir: Path,
        download: bool = False,
        features: str = "normalised",
        nodes: int = 0,
        data_seed: int = 0,
    ) -> None:
        check_known("task option features", features, FEATURES)
        self.seed = seed
        full_name = f"{name}_links"
        if source == "stand_in":
            tree = stand_in.generate(_recipe(name, nodes), data_seed)
            data = tree.to_data()
            self.info = DataInfo(full_name, "stand-in", notes=_sizes(data) | {"topic_auc": tree.topic_auc()})
        else:
            data, checksums = load_planetoid(name, data_dir, download)
            self.info = DataInfo(full_name, "real", checksums, notes=_sizes(data))
        graph = to_graph(data, normalise=features == "normalised")
        self.links = split_links(graph.edge_index, graph.num_nodes, seed)
        self.graph = graph.with_edges(self.links.train)
        self._autoencoder = GAE(nn.Identity())

    def model_options(self) -> dict[str, Any]:
        return {"in_channels": self.graph.x.shape[1]}

    def to(self, device: torch.device) -> None:
        self.graph = self.graph.to(device)

    def steps_per_epoch(self) -> int:
        return 1

    def train_batches(self, epoch: int, skip: int = 0) -> Iterable[Tensor]:
        """The epoch's negative pairs, (2, training edges)."""
        return [self._negatives(epoch)][skip:]

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        """Mean log loss over the training edges plus that over the negative pairs in `batch`."""
        embedding = model(self.graph)
        loss: Tensor = self._autoencoder.recon_loss(embedding, self.graph.edge_index, batch)
        return loss

    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        pairs = self.links.positive[split], self.links.negative[split]
        embeddings = model(self.graph).float()
        auc, ap = self._autoencoder.test(embeddings, *pairs)
        scores = self._autoencoder.decode(embeddings, torch.cat(pairs, dim=1))
        return {"auc": float(auc), "ap": float(ap), **constant_predictions(scores, SAME_SCORE)}

    def alignment_loss(self, model: nn.Module) -> Tensor:
        """The loss with a fixed set of negative pairs."""
        return self.loss(model, self._negatives(0))

    def _negatives(self, epoch: int) -> Tensor:
        # Two well-mixed words per seed: neighbouring seeds and epochs share nothing.
        state = np.random.SeedSequence([self.seed, epoch]).generate_state(1, np.uint64)[0]
        generator = torch.Generator().manual_seed(int(state) >> 1)
        train = self.links.train
        pairs = sample_non_edges(train, self.graph.num_nodes, train.size(1), generator)
        return pairs.to(self.graph.edge_index.device)


def stratified_folds(labels: Tensor, seed: int, shares: tuple[int, int, int] = (1, 1, 3)) -> dict[str, Tensor]:
    """Five folds with equal parts of each class, of which `shares` train, validate and test."""
    from sklearn.model_selection import StratifiedKFold  # takes as long as torch, and the public split needs none

    folds = StratifiedKFold(5, shuffle=True, random_state=seed).split(labels.numpy(), labels.numpy())
    parts = iter([torch.from_numpy(held_out) for _, held_out in folds])
    names = zip(("train", "valid", "test"), shares, strict=True)
    return {name: torch.cat([next(parts) for _ in range(share)]) for name, share in names}


def _check_log_probabilities(out: Tensor) -> None:
    """Check that the rows of a model's output are logarithms of probabilities; of others the loss has no bound.

    Outputs that are not numbers are left to the training loop.

    Raises:
        ConfigError: those of a row do not sum to one.
    """
    sums = out.detach().float().logsumexp(dim=1).exp()
    if bool((sums > 1 + NOT_ONE).any() or (sums < 1 - NOT_ONE).any()):
        raise ConfigError(
            "task.options.outputs=log_probabilities, but the model returns scores, whose exponentials do not sum to "
            "one; set model.options.log_softmax=true, or task.options.outputs=logits"
        )


def _recipe(name: str, nodes: int) -> stand_in.Recipe:
    recipe = stand_in.RECIPES[name]
    if nodes == 0:
        return recipe
    if nodes < 60:
        raise ConfigError(f"task option nodes must be at least 60 (or 0 for the usual size), got {nodes}")
    # Smaller graphs keep the proportions of the splits.
    share = nodes / recipe.nodes
    valid, test = max(1, int(recipe.valid * share)), max(1, int(recipe.test * share))
    train, founders = max(1, int(recipe.train * share)), max(1, int(recipe.founders * share))
    return replace(recipe, nodes=nodes, founders=founders, train=train, valid=valid, test=test)


def _sizes(data: Data) -> dict[str, float | str]:
    return {"nodes": float(data.num_nodes), "edges": float(data.num_edges)}


for _name in FOLDERS:
    TASKS.register(_name)(partial(NodeClassification, _name))
    TASKS.register(f"{_name}_links")(partial(LinkPrediction, _name))
