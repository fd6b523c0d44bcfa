"""Small graphs for several tests."""

import torch
from pytest import fixture

from benchmarks.families.graphs.graph import Graph
from benchmarks.families.graphs.sparse import SparseMatrix

NODES, CHANNELS = 12, 9


@fixture
def graph() -> Graph:
    """Return an undirected graph in double precision: a path with chords, node 11 isolated, half the features zero."""
    generator = torch.Generator().manual_seed(7)
    one_way = [(i, i + 1) for i in range(10)] + [(0, 5), (2, 9), (3, 7), (1, 10)]
    edges = torch.tensor(one_way + [(b, a) for a, b in one_way]).t()
    x = torch.rand(NODES, CHANNELS, generator=generator, dtype=torch.float64)
    x = x * (torch.rand(NODES, CHANNELS, generator=generator) < 0.5)
    degree = torch.bincount(edges[1], minlength=NODES).double()
    attributes = (degree / degree.max())[edges[1]][:, None]
    labels = torch.randint(4, (NODES,), generator=generator)
    return Graph(SparseMatrix.from_dense(x), labels, edges, attributes)
