"""Edges for link prediction: split once per seed, negatives drawn from a generator of their own."""

from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.errors import ConfigError

VALID_SHARE, TEST_SHARE = 0.05, 0.10


@dataclass(frozen=True)
class LinkSplit:
    """Edges (2, n) of a link-prediction problem.

    Attributes:
        train: edges that the encoder sees and is trained on, both directions.
        positive, negative: for "valid" and "test", held-out edges (one direction) and as many pairs that are no edges.
    """

    train: Tensor
    positive: dict[str, Tensor]
    negative: dict[str, Tensor]


def split_links(edge_index: Tensor, num_nodes: int, seed: int) -> LinkSplit:
    """Split an undirected graph's edges 85 / 5 / 10 % into train, valid and test, reproducibly.

    Raises:
        ConfigError: too few edges to hold any out.
    """
    source, target = edge_index
    edges = edge_index[:, source < target]
    count = edges.size(1)
    valid, test = int(count * VALID_SHARE), int(count * TEST_SHARE)
    if valid == 0:
        raise ConfigError(f"link prediction needs at least {int(1 / VALID_SHARE)} edges, the graph has {count}")
    generator = torch.Generator().manual_seed(seed)
    edges = edges[:, torch.randperm(count, generator=generator)]
    held = {"valid": edges[:, :valid], "test": edges[:, valid : valid + test]}
    train = edges[:, valid + test :]
    train = torch.cat([train, train.flip(0)], dim=1)
    both = torch.cat([edge_index, edge_index.flip(0)], dim=1)
    pairs = sample_non_edges(both, num_nodes, valid + test, generator, undirected=True)
    return LinkSplit(train, held, {"valid": pairs[:, :valid], "test": pairs[:, valid:]})


def sample_non_edges(
    edge_index: Tensor, num_nodes: int, count: int, generator: torch.Generator, undirected: bool = False
) -> Tensor:
    """`count` distinct ordered pairs of different nodes that are not in `edge_index`, uniformly at random.

    PyG's sampler draws from Python's global random state; a training step must be a function of seed and epoch alone.

    Args:
        edge_index: (2, edges), on the CPU.
        undirected: only pairs (i, j) with i < j, so that no pair comes twice in both directions.

    Returns:
        (2, count), in random order.

    Raises:
        ConfigError: the graph has fewer such pairs.
    """
    taken = (edge_index[0] * num_nodes + edge_index[1]).unique()
    drawn = taken.new_empty(0)
    free = (num_nodes * (num_nodes - 1) - taken.numel()) // (2 if undirected else 1)
    if count > free // 2:
        raise ConfigError(f"the graph is too dense: {count} pairs without an edge wanted, about {free} exist")
    while drawn.numel() < count:
        candidates = torch.randint(num_nodes**2, (2 * count + 16,), generator=generator)
        source, target = candidates // num_nodes, candidates % num_nodes
        keep = (source < target) if undirected else (source != target)
        candidates = candidates[keep]
        drawn = torch.cat([drawn, candidates[~torch.isin(candidates, taken)]]).unique()
    drawn = drawn[torch.randperm(drawn.numel(), generator=generator)[:count]]
    return torch.stack([drawn // num_nodes, drawn % num_nodes])
