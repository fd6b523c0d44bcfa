"""Splits of edges and negative samples for link prediction, as functions of a seed."""

from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.errors import ConfigError

VALID_SHARE, TEST_SHARE = 0.05, 0.10


@dataclass(frozen=True)
class LinkSplit:
    """Node pairs of a link-prediction problem, each tensor of shape (2, n).

    Attributes:
        train: edges that the encoder sees and is trained on, in both directions.
        positive: held-out edges of "valid" and "test", in one direction.
        negative: as many pairs without an edge for each of them.
    """

    train: Tensor
    positive: dict[str, Tensor]
    negative: dict[str, Tensor]


def split_links(edge_index: Tensor, num_nodes: int, seed: int) -> LinkSplit:
    """Split the edges of an undirected graph 85 / 5 / 10 % into train, valid and test.

    Args:
        edge_index: (2, edges), both directions listed.
        num_nodes: number of nodes.
        seed: determines the split and the negative pairs.

    Raises:
        ConfigError: the graph has fewer than 20 edges, so none can be held out.
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
    """Draw distinct ordered pairs of different nodes that are not in `edge_index`, uniformly at random.

    PyG's `negative_sampling` draws from the global random state, which would make a step depend on all steps before.

    Args:
        edge_index: (2, edges), on the CPU.
        num_nodes: number of nodes.
        count: number of pairs.
        generator: source of randomness.
        undirected: whether to draw only pairs (i, j) with i < j.

    Returns:
        (2, count), in random order.

    Raises:
        ConfigError: more than half of all such pairs are wanted.
    """
    taken = (edge_index[0] * num_nodes + edge_index[1]).unique()
    drawn = taken.new_empty(0)
    free = (num_nodes * (num_nodes - 1) - taken.numel()) // (2 if undirected else 1)
    if count > free // 2:
        raise ConfigError(f"the graph is too dense: {count} pairs without an edge are needed, about {free} exist")
    while drawn.numel() < count:
        candidates = torch.randint(num_nodes**2, (2 * count + 16,), generator=generator)
        source, target = candidates // num_nodes, candidates % num_nodes
        keep = (source < target) if undirected else (source != target)
        candidates = candidates[keep]
        drawn = torch.cat([drawn, candidates[~torch.isin(candidates, taken)]]).unique()
    drawn = drawn[torch.randperm(drawn.numel(), generator=generator)[:count]]
    return torch.stack([drawn // num_nodes, drawn % num_nodes])
