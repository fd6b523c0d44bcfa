"""A graph as the models see it: sparse features, edges, and the matrices that layers derive from them once."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import Tensor
from torch_geometric.nn.conv import ChebConv
from torch_geometric.nn.conv.gcn_conv import gcn_norm

from benchmarks.families.graphs.sparse import Pattern, SparseMatrix

Derived = TypeVar("Derived")


@dataclass
class Graph:
    """One graph, treated as a whole.

    Attributes:
        x: features, (nodes, channels), sparse.
        y: class of every node, (nodes,).
        edge_index: (2, edges); an edge leads from row 0 (source) to row 1 (target), both directions being listed.
        edge_attr: one pseudo-coordinate in [0, 1] per edge, (edges, 1), or None.
    """

    x: SparseMatrix
    y: Tensor
    edge_index: Tensor
    edge_attr: Tensor | None = None
    _derived: dict[Hashable, object] = field(default_factory=dict, repr=False)

    @property
    def num_nodes(self) -> int:
        return self.x.shape[0]

    def to(self, device: torch.device) -> "Graph":
        edge_attr = None if self.edge_attr is None else self.edge_attr.to(device)
        return Graph(self.x.to(device), self.y.to(device), self.edge_index.to(device), edge_attr)

    def with_edges(self, edge_index: Tensor) -> "Graph":
        """The same nodes with other edges and no edge attributes."""
        return Graph(self.x, self.y, edge_index)

    def once(self, key: Hashable, build: Callable[[], Derived]) -> Derived:
        """`build()` at the first call with this key, the same object ever after."""
        if key not in self._derived:
            with torch.no_grad():
                self._derived[key] = build()
        return self._derived[key]  # type: ignore[return-value]

    def normalised_adjacency(self) -> SparseMatrix:
        """D̂^-1/2 (A + I) D̂^-1/2 of Kipf and Welling, as PyTorch Geometric's `gcn_norm` computes it."""

        def build() -> SparseMatrix:
            edges, weights = gcn_norm(self.edge_index, None, self.num_nodes, dtype=self.x.values.dtype)
            return self.propagation(edges, weights)

        return self.once("normalised adjacency", build)

    def scaled_laplacian(self, layer: ChebConv) -> SparseMatrix:
        """2 L / λ_max - I with the symmetric Laplacian L, as PyTorch Geometric's `ChebConv` computes it."""

        def build() -> SparseMatrix:
            # PyG's name for it starts with two underscores and ends with two: no mangling, but no other access either.
            edges, weights = layer.__norm__(
                self.edge_index, self.num_nodes, None, layer.normalization, None, self.x.values.dtype
            )
            return self.propagation(edges, weights)

        return self.once(("scaled Laplacian", layer.normalization), build)

    def propagation(self, edge_index: Tensor, weights: Tensor) -> SparseMatrix:
        """The matrix P with (P h)[i] = Σ_{edges j → i} weight · h[j]."""
        source, target = edge_index
        return SparseMatrix.from_entries(target, source, weights, (self.num_nodes, self.num_nodes))

    def spread(self, heads: int, blocks: int | None = None) -> Pattern:
        """Edges and self-loops of Â, once per head, as one pattern of (nodes·heads, nodes·blocks).

        Row i·heads + h holds, for every neighbour j of i (ascending), the column j·blocks + b, where b is the block of
        channels that head h reads: its own by default; otherwise as many heads in a row share one as there are heads to
        a block. Entries are therefore ordered as (target, head, source).
        """
        blocks = heads if blocks is None else blocks

        def build() -> Pattern:
            single = self.normalised_adjacency().pattern
            head = torch.arange(heads, device=single.row.device)
            rows = (single.row[:, None] * heads + head).flatten()
            columns = (single.column[:, None] * blocks + head * blocks // heads).flatten()
            # (source, head) within a target becomes (head, source): a stable sort by row does it.
            order = torch.argsort(rows, stable=True)
            return Pattern.from_sorted(rows[order], columns[order], (self.num_nodes * heads, self.num_nodes * blocks))

        return self.once(("spread", heads, blocks), build)

    def spread_weights(self, heads: int) -> Tensor:
        """Entries of the normalised adjacency in the order (target, head, source), (entries·heads,)."""

        def build() -> Tensor:
            adjacency = self.normalised_adjacency()
            rows = (
                adjacency.pattern.row[:, None] * heads + torch.arange(heads, device=adjacency.values.device)
            ).flatten()
            weights = adjacency.values[:, None].expand(-1, heads).flatten()
            return weights[torch.argsort(rows, stable=True)]

        return self.once(("spread weights", heads), build)
