"""Edge splits and negative pairs, against sets."""

import pytest
import torch

from benchmarks.errors import ConfigError
from benchmarks.families.graphs.links import sample_non_edges, split_links


def ring(nodes: int) -> torch.Tensor:
    here = torch.arange(nodes)
    one_way = torch.stack([here, (here + 1) % nodes])
    return torch.cat([one_way, one_way.flip(0)], dim=1)


def pairs(edges: torch.Tensor) -> list[tuple[int, int]]:
    return [(min(edge), max(edge)) for edge in edges.t().tolist()]


def test_every_edge_is_in_exactly_one_split() -> None:
    edges = ring(100)
    parts = split_links(edges, 100, seed=0)
    assert parts.train.size(1) == 2 * 85
    assert {name: part.size(1) for name, part in parts.positive.items()} == {"valid": 5, "test": 10}
    assert {name: part.size(1) for name, part in parts.negative.items()} == {"valid": 5, "test": 10}
    train = pairs(parts.train[:, :85])
    everything = train + pairs(parts.positive["valid"]) + pairs(parts.positive["test"])
    assert sorted(everything) == sorted(set(pairs(edges)))
    assert {tuple(edge) for edge in parts.train.t().tolist()} == {e for a, b in train for e in ((a, b), (b, a))}


def test_held_out_negatives_are_no_edges_and_distinct() -> None:
    edges = ring(40)
    parts = split_links(edges, 40, seed=1)
    negatives = pairs(torch.cat(list(parts.negative.values()), dim=1))
    assert len(set(negatives)) == len(negatives) == 6
    assert not set(negatives) & set(pairs(edges))
    assert all(a != b for a, b in negatives)


def test_split_depends_on_the_seed_alone() -> None:
    first, again, other = (split_links(ring(100), 100, seed) for seed in (0, 0, 1))
    assert torch.equal(first.train, again.train) and torch.equal(first.negative["test"], again.negative["test"])
    assert not torch.equal(first.train, other.train)


def test_negative_pairs_are_uniform_over_the_free_ones() -> None:
    """5 nodes in a ring leave 10 ordered pairs: each is drawn equally often, edges and loops never."""
    counts = torch.zeros(5, 5)
    generator = torch.Generator().manual_seed(0)
    for _ in range(2000):
        source, target = sample_non_edges(ring(5), 5, 4, generator)
        assert len(set(zip(source.tolist(), target.tolist(), strict=True))) == 4
        counts[source, target] += 1
    distance = (torch.arange(5)[:, None] - torch.arange(5)).abs()
    free = (distance == 2) | (distance == 3)
    assert counts[~free].sum() == 0
    # 8,000 draws over 10 pairs, 800 each, standard deviation 22 (hypergeometric within a draw).
    assert (counts[free] - 800).abs().max() < 100


def test_too_dense_and_too_small_graphs_are_refused() -> None:
    complete = torch.combinations(torch.arange(8)).t()
    complete = torch.cat([complete, complete.flip(0)], dim=1)
    with pytest.raises(ConfigError, match="too dense"):
        sample_non_edges(complete, 8, 3, torch.Generator())
    with pytest.raises(ConfigError, match="at least 20 edges"):
        split_links(ring(5), 5, seed=0)
