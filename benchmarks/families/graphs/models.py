"""The networks of Tables 3 and 4, as plain modules; which rule trains them is no concern of theirs.

All take a `Graph` and return one row per node: class scores before the softmax, or embeddings for the autoencoder.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.errors import ConfigError
from benchmarks.families.graphs.graph import Graph
from benchmarks.families.graphs.layers import (
    AttentionConvolution,
    ChebyshevConvolution,
    GraphConvolution,
    NeighbourhoodAggregation,
    SplineConvolution,
)
from benchmarks.registry import MODELS
from benchmarks.utils.values import check_least, check_probability


class TwoLayerNet(nn.Module):
    """Two graph convolutions with an activation and dropout between them.

    `act` and `dropout` are modules of their own because feedback points sit on one or the other.
    """

    def __init__(
        self, first: nn.Module, second: nn.Module, act: nn.Module, dropout: float, input_dropout: float = 0.0
    ) -> None:
        super().__init__()
        check_probability("dropout", dropout)
        check_probability("input_dropout", input_dropout)
        self.convs = nn.ModuleList([first, second])
        self.act = act
        self.dropout = nn.Dropout(dropout)
        self.input_dropout = input_dropout

    def forward(self, graph: Graph) -> Tensor:
        """Graph → (nodes, channels of the second layer)."""
        x = graph.x.dropout(self.input_dropout, self.training)
        hidden: Tensor = self.dropout(self.act(self.convs[0](x, graph)))
        out: Tensor = self.convs[1](hidden, graph)
        return out


class DynamicNeighbourhoodNet(nn.Module):
    """A linear layer, then convolutions that each attend over the outputs of all earlier layers, then a linear layer.

    `acts.0` follows the first linear layer and `acts.i` the i-th convolution; `log_softmax` turns scores into
    log-probabilities.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        hidden: int,
        layers: int,
        heads: int,
        groups: int,
        dropout: float,
        attention_dropout: float,
        log_softmax: bool,
    ) -> None:
        super().__init__()
        check_probability("dropout", dropout)
        check_probability("attention_dropout", attention_dropout)
        self.embed = nn.Linear(in_channels, hidden)
        self.convs = nn.ModuleList(
            NeighbourhoodAggregation(hidden, heads, groups, dropout=attention_dropout) for _ in range(layers)
        )
        self.acts = nn.ModuleList(nn.ReLU() for _ in range(layers + 1))
        self.dropout = dropout
        self.classifier = nn.Linear(hidden, num_classes)
        self.log_softmax = nn.LogSoftmax(dim=1) if log_softmax else nn.Identity()

    def forward(self, graph: Graph) -> Tensor:
        """Graph → (nodes, classes)."""
        hidden = self.acts[0](graph.x @ self.embed.weight.t() + self.embed.bias)
        history = [F.dropout(hidden, self.dropout, self.training)]
        for conv, act in zip(self.convs, self.acts[1:], strict=True):
            hidden = act(conv(history, graph))
            history.append(hidden)
        scores = self.classifier(F.dropout(hidden, self.dropout, self.training))
        out: Tensor = self.log_softmax(scores)
        return out


@MODELS.register("cheb")
def cheb(in_channels: int, num_classes: int, hidden: int = 16, dropout: float = 0.5) -> TwoLayerNet:
    """Chebyshev convolutions with K = 2 (Defferrard et al., 2016)."""
    first, second = ChebyshevConvolution(in_channels, hidden), ChebyshevConvolution(hidden, num_classes)
    return TwoLayerNet(first, second, nn.ReLU(), dropout)


@MODELS.register("gcn")
def gcn(in_channels: int, num_classes: int, hidden: int = 16, dropout: float = 0.5) -> TwoLayerNet:
    """Graph convolutions (Kipf and Welling, 2017)."""
    first, second = GraphConvolution(in_channels, hidden), GraphConvolution(hidden, num_classes)
    return TwoLayerNet(first, second, nn.ReLU(), dropout)


@MODELS.register("spline")
def spline(
    in_channels: int,
    num_classes: int,
    hidden: int = 16,
    kernel_size: int = 2,
    dropout: float = 0.5,
    input_dropout: float = 0.5,
) -> TwoLayerNet:
    """Spline convolutions on one pseudo-coordinate per edge (Fey et al., 2018)."""
    check_least("model spline: kernel_size", kernel_size, 2)
    first = SplineConvolution(in_channels, hidden, kernel_size)
    second = SplineConvolution(hidden, num_classes, kernel_size)
    return TwoLayerNet(first, second, nn.ELU(), dropout, input_dropout)


@MODELS.register("gat")
def gat(
    in_channels: int,
    num_classes: int,
    hidden: int = 8,
    heads: int = 8,
    output_heads: int = 1,
    dropout: float = 0.6,
    input_dropout: float = 0.6,
    attention_dropout: float = 0.6,
    output_attention_dropout: float = 0.6,
) -> TwoLayerNet:
    """Graph attention (Veličković et al., 2018), `heads` × `hidden` channels; output heads are averaged."""
    check_probability("attention_dropout", attention_dropout)
    check_probability("output_attention_dropout", output_attention_dropout)
    first = AttentionConvolution(in_channels, hidden, heads, dropout=attention_dropout)
    second = AttentionConvolution(
        heads * hidden, num_classes, output_heads, concat=False, dropout=output_attention_dropout
    )
    return TwoLayerNet(first, second, nn.ELU(), dropout, input_dropout)


@MODELS.register("dna")
def dna(
    in_channels: int,
    num_classes: int,
    hidden: int = 128,
    layers: int = 5,
    heads: int = 8,
    groups: int = 16,
    dropout: float = 0.5,
    attention_dropout: float = 0.8,
    log_softmax: bool = False,
) -> DynamicNeighbourhoodNet:
    """Dynamic neighbourhood aggregation (Fey, 2019); with `log_softmax` it returns log-probabilities."""
    if hidden % heads or hidden % groups or max(heads, groups) % min(heads, groups):
        raise ConfigError(
            f"model dna: heads ({heads}) and groups ({groups}) must divide hidden ({hidden}) and one of them the other"
        )
    return DynamicNeighbourhoodNet(
        in_channels, num_classes, hidden, layers, heads, groups, dropout, attention_dropout, log_softmax
    )


@MODELS.register("gae")
def gae(in_channels: int, embedding: int = 16) -> TwoLayerNet:
    """Encoder of the graph autoencoder (Kipf and Welling, 2016): in → 2 · embedding → embedding, no dropout."""
    first, second = GraphConvolution(in_channels, 2 * embedding), GraphConvolution(2 * embedding, embedding)
    return TwoLayerNet(first, second, nn.ReLU(), dropout=0.0)
