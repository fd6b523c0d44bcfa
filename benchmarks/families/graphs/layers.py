"""Graph layers: PyTorch Geometric's parameters and mathematics, computed with sparse products on a fixed graph.

Each layer is PyG's own class with another `forward`: same parameters, same initialisation, same result (tests compare
both), but features stay sparse and everything that depends on the graph alone is computed once. The exception is the
spline convolution, whose PyG class needs compiled kernels; its few lines for one-dimensional linear splines are here.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import ChebConv, DNAConv, GATConv, GCNConv
from torch_geometric.nn.conv.dna_conv import Linear as GroupedLinear
from torch_geometric.nn.dense import Linear
from torch_geometric.nn.inits import uniform, zeros
from torch_geometric.utils import softmax

from benchmarks.errors import ConfigError
from benchmarks.families.graphs.graph import Graph
from benchmarks.families.graphs.sparse import SparseMatrix, pair_products, weighted_sum

Features = Tensor | SparseMatrix


class GraphConvolution(GCNConv):
    """Â x W + b (Kipf and Welling, 2017)."""

    def forward(self, x: Features, graph: Graph) -> Tensor:
        """(nodes, in) → (nodes, out)."""
        return graph.normalised_adjacency() @ (x @ self.lin.weight.t()) + self.bias


class ChebyshevConvolution(ChebConv):
    """Σ_k T_k(L̂) x W_k + b (Defferrard et al., 2016) for K = 2: x W_0 + L̂ x W_1 + b."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, K=2)

    def forward(self, x: Features, graph: Graph) -> Tensor:
        """(nodes, in) → (nodes, out)."""
        own, neighbours = (x @ torch.cat([lin.weight for lin in self.lins]).t()).chunk(2, dim=1)
        return own + graph.scaled_laplacian(self) @ neighbours + self.bias


class AttentionConvolution(GATConv):
    """Attention over neighbours and the node itself (Veličković et al., 2018)."""

    def forward(self, x: Features, graph: Graph) -> Tensor:
        """(nodes, in) → (nodes, heads · out), or the mean over heads where `concat` is off."""
        heads, channels = self.heads, self.out_channels
        hidden = (x @ self.lin.weight.t()).view(-1, heads, channels)
        pattern = graph.spread(heads)
        from_source = (hidden * self.att_src).sum(-1).flatten()
        from_target = (hidden * self.att_dst).sum(-1).flatten()
        scores = F.leaky_relu(from_source[pattern.column] + from_target[pattern.row], self.negative_slope)
        attention = softmax(scores, pattern.row, num_nodes=pattern.shape[0])
        attention = F.dropout(attention, self.dropout, self.training)
        out = weighted_sum(pattern, attention[None], [hidden.reshape(-1, channels)]).view(-1, heads, channels)
        return (out.flatten(1) if self.concat else out.mean(1)) + self.bias


class NeighbourhoodAggregation(DNAConv):
    """Dynamic neighbourhood aggregation (Fey, 2019): nodes attend over all earlier layers of each neighbour.

    PyG projects every earlier layer of every neighbour to a key and a value. As q · (x K + k) = (q Kᵀ) · x + q · k and
    Σ s (x V + v) = (Σ s x) V + (Σ s) v, here only each node's query and sum are projected, and edges read the earlier
    layers as they are.
    """

    def forward(self, history: Sequence[Tensor], graph: Graph) -> Tensor:
        """Outputs of all earlier layers, each (nodes, channels) → (nodes, channels)."""
        attention = self.multi_head
        heads, blocks = attention.heads, min(attention.heads, attention.groups)
        pattern = graph.spread(heads, blocks)
        layers = [x.reshape(pattern.shape[1], -1) for x in history]
        query, offset = self._queries(history[-1], heads, blocks)
        scores = pair_products(pattern, query, layers)
        # PyG's restricted softmax is an ordinary one with a further score of zero, whose share is dropped. Relative to
        # scores without their offset it is a score of -offset.
        nothing = -offset.to(scores.dtype).index_select(0, pattern.row)
        shares = torch.cat([scores, nothing[None]]).softmax(0)[:-1]
        # Dropout of the constant weights does to the product what dropout of the shares would, without a gradient.
        weights = graph.spread_weights(heads)[:, None].expand(-1, len(layers))
        weights = shares * F.dropout(weights.contiguous(), attention.dropout, self.training).t()
        sums = weighted_sum(pattern, weights, layers)
        totals = weighted_sum(pattern, weights.sum(0, keepdim=True), [sums.new_ones(pattern.shape[1], 1)])
        value, bias = _per_head(attention.lin_v, heads)
        by_head = (part.view(graph.num_nodes, heads, -1).transpose(0, 1) for part in (sums, totals))
        out = torch.bmm(torch.cat(tuple(by_head), dim=2), torch.cat([value, bias], dim=1))
        return out.transpose(0, 1).flatten(1)

    def _queries(self, x: Tensor, heads: int, blocks: int) -> tuple[Tensor, Tensor]:
        """Compute q Kᵀ / sqrt(channels per head), (nodes·heads, block width), and q · k / sqrt(…), (nodes·heads,)."""
        (to_query, query_bias), (to_key, key_bias) = (
            _per_head(linear, heads) for linear in (self.multi_head.lin_q, self.multi_head.lin_k)
        )
        back = torch.cat([to_key, key_bias], dim=1).transpose(1, 2) / math.sqrt(to_key.size(2))
        by_head = x.view(len(x), blocks, 1, -1).expand(-1, -1, heads // blocks, -1).flatten(1, 2).transpose(0, 1)
        # One after the other: a product of the two matrices would be a weight that is nowhere a parameter.
        query = torch.bmm(torch.baddbmm(query_bias, by_head, to_query), back).transpose(0, 1)
        return query[..., :-1].flatten(0, 1), query[..., -1].flatten()


def _per_head(linear: GroupedLinear, heads: int) -> tuple[Tensor, Tensor]:
    """Weights of PyG's grouped linear layer, (heads, channels per block, channels per head), and bias (heads, 1, …).

    A block holds the channels that a head reads: groups within one head make a block-diagonal matrix.
    """
    blocks = min(heads, linear.groups)
    groups = linear.weight.unflatten(0, (blocks, -1)).movedim(1, -1)  # (block, in, out, group)
    weight = groups.diag_embed(dim1=1, dim2=3).flatten(3, 4).flatten(1, 2)
    weight = weight.unflatten(2, (heads // blocks, -1)).transpose(1, 2).flatten(0, 1)
    return weight, linear.bias.view(heads, 1, -1)


class SplineConvolution(nn.Module):
    """Spline convolution (Fey et al., 2018) with one pseudo-coordinate u in [0, 1] per edge and linear, open B-splines.

    out[i] = mean over edges j → i of Σ_k B_k(u_ij) x_j W_k, plus x_i W_root + b, where B_k is the hat function around
    k / (kernel_size - 1). Initialisation as PyG's class: W_k uniform within 1/sqrt(kernel_size · in), W_root within
    1/sqrt(in), b zero.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 2) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.weight = nn.Parameter(torch.empty(kernel_size, in_channels, out_channels))
        self.lin = Linear(in_channels, out_channels, bias=False, weight_initializer="uniform")
        self.bias = nn.Parameter(torch.empty(out_channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        uniform(self.weight.size(0) * self.weight.size(1), self.weight)
        self.lin.reset_parameters()
        zeros(self.bias)

    def forward(self, x: Features, graph: Graph) -> Tensor:
        """(nodes, in) → (nodes, out)."""
        weights = torch.cat([*self.weight, self.lin.weight.t()], dim=1)
        *per_knot, own = (x @ weights).chunk(self.kernel_size + 1, dim=1)
        for propagation, hidden in zip(self._propagations(graph), per_knot, strict=True):
            own = own + propagation @ hidden
        return own + self.bias

    def _propagations(self, graph: Graph) -> list[SparseMatrix]:
        """One matrix per knot: the hat function at every edge, divided by the number of edges that reach the target."""

        def build() -> list[SparseMatrix]:
            if graph.edge_attr is None:
                raise ConfigError(
                    "the spline convolution needs a pseudo-coordinate per edge, which this task's graph lacks"
                )
            arriving = torch.bincount(graph.edge_index[1], minlength=graph.num_nodes)[graph.edge_index[1]]
            position = graph.edge_attr[:, 0] * (self.kernel_size - 1)
            hats = [(1 - (position - knot).abs()).clamp(min=0) for knot in range(self.kernel_size)]
            return [graph.propagation(graph.edge_index, hat / arriving) for hat in hats]

        return graph.once(("spline", self.kernel_size), build)
