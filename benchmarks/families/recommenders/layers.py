"""Layers of the click models; every possible feedback point is a module of its own.

Formulas: factorisation machine, Rendle 2010; cross layer, Wang et al. 2017; logarithmic neurons, Cheng et al. 2020;
self-attention over fields, Song et al. 2019. Ids have shape (batch, fields) and count from 0 within each field.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.errors import ConfigError
from benchmarks.utils.values import check_least, check_probability


class FieldTable(nn.Module):
    """Embedding table shared by all fields; the rows of a field follow those of the field before it.

    Args:
        field_sizes: number of ids of each field.
        dim: width of an embedding.
        std: standard deviation of the normal initialisation, 0 for zeros; None for Xavier-uniform over the whole table.

    Raises:
        ConfigError: a size or `dim` is out of range.
    """

    offsets: Tensor

    def __init__(self, field_sizes: Sequence[int], dim: int, std: float | None = None) -> None:
        super().__init__()
        sizes = [int(size) for size in field_sizes]
        if not sizes or min(sizes) < 1 or sum(sizes) >= 2**31:
            raise ConfigError("field_sizes must be positive and sum to less than 2**31")
        check_least("embedding_dim", dim, 1)
        self.table = nn.Embedding(sum(sizes), dim)
        # int32 like the ids, so that a look-up needs no conversion.
        offsets = torch.tensor([0, *np.cumsum(sizes)[:-1]], dtype=torch.int32)
        self.register_buffer("offsets", offsets, persistent=False)
        if std is None:
            nn.init.xavier_uniform_(self.table.weight)
        else:
            nn.init.normal_(self.table.weight, std=std)

    def forward(self, ids: Tensor) -> Tensor:
        """Map ids (batch, fields) to embeddings (batch, fields, dim)."""
        return self.table(ids + self.offsets)


class FirstOrder(nn.Module):
    """Linear term: the sum over fields of one weight per id, plus a bias.

    Args:
        field_sizes: number of ids of each field.
        std: standard deviation of the initial weights.
    """

    def __init__(self, field_sizes: Sequence[int], std: float) -> None:
        super().__init__()
        self.weights = FieldTable(field_sizes, 1, std)
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, ids: Tensor) -> Tensor:
        """Map ids (batch, fields) to (batch, 1)."""
        return self.weights(ids).sum(dim=1) + self.bias


class PairwiseProducts(nn.Module):
    """Sum of the inner products of all pairs of fields, computed as ½((Σv)² − Σv²) (Rendle 2010)."""

    def forward(self, embedded: Tensor) -> Tensor:
        """Map embeddings (batch, fields, dim) to (batch, 1)."""
        difference = embedded.sum(dim=1).square() - embedded.square().sum(dim=1)
        return 0.5 * difference.sum(dim=1, keepdim=True)


class Mlp(nn.Module):
    """Multi-layer perceptron: blocks of Linear → BatchNorm → ReLU → Dropout, then optionally a Linear to one number.

    Feedback points are `input` (the input of the first block) and `blocks.*`.

    Args:
        in_features: width of the input.
        widths: widths of the blocks.
        dropout: dropout probability.
        output: whether to add the output layer.

    Raises:
        ConfigError: a width or the probability is out of range.
    """

    def __init__(self, in_features: int, widths: Sequence[int], dropout: float, output: bool = True) -> None:
        super().__init__()
        if not widths or min(widths) < 1:
            raise ConfigError(f"hidden must name at least one positive width, got {list(widths)}")
        check_probability("dropout", dropout)
        self.input = nn.Identity()
        sizes = [in_features, *widths]
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(below, above), nn.BatchNorm1d(above), nn.ReLU(), nn.Dropout(dropout))
            for below, above in pairwise(sizes)
        )
        self.output = nn.Linear(sizes[-1], 1) if output else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, in_features) to (batch, 1), or to (batch, widths[-1]) without output layer."""
        x = self.input(x)
        for block in self.blocks:
            x = block(x)
        return x if self.output is None else self.output(x)


class CrossLayer(nn.Module):
    """Cross layer x ↦ x₀ (w·x) + b + x (Wang et al. 2017)."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.project = nn.Linear(features, 1, bias=False)
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, x0: Tensor, x: Tensor) -> Tensor:
        """Map two (batch, features) to (batch, features)."""
        return torch.addcmul(self.bias + x, x0, self.project(x))


class CrossNetwork(nn.Module):
    """Sequence of `depth` cross layers; all but the last are `layers.*`, the last is `last`.

    Raises:
        ConfigError: `depth` is below 1.
    """

    def __init__(self, features: int, depth: int) -> None:
        super().__init__()
        check_least("cross_layers", depth, 1)
        self.layers = nn.ModuleList(CrossLayer(features) for _ in range(depth - 1))
        self.last = CrossLayer(features)

    def forward(self, x0: Tensor) -> Tensor:
        """Map (batch, features) to the same shape."""
        x = x0
        for layer in self.layers:
            x = layer(x0, x)
        return self.last(x0, x)


class Concatenation(nn.Module):
    """Concatenation of features, a module so that it can be a feedback point."""

    def forward(self, *parts: Tensor) -> Tensor:
        """Concatenate tensors (batch, …) along dimension 1."""
        return torch.cat(parts, dim=1)


class Logarithmic(nn.Module):
    """Logarithmic neurons (Cheng et al. 2020): relu(expm1(W log1p(|v| + 1e-7))) over the fields v.

    W is (neurons, fields), initialised uniformly in ±1/sqrt(fields); there is no bias.

    Raises:
        ConfigError: `neurons` is below 1.
    """

    def __init__(self, fields: int, neurons: int) -> None:
        super().__init__()
        check_least("neurons", neurons, 1)
        bound = fields**-0.5
        self.weight = nn.Parameter(torch.empty(neurons, fields).uniform_(-bound, bound))

    def forward(self, embedded: Tensor) -> Tensor:
        """Map embeddings (batch, fields, dim) to (batch, neurons * dim)."""
        # 1e-7 as in the published model, whose derivative it affects; log1p is finite at 0 without it.
        logarithms = torch.log1p(embedded.abs() + 1e-7)
        return torch.relu(torch.expm1(self.weight @ logarithms)).flatten(1)


class SelfAttention(nn.Module):
    """Multi-head self-attention over fields (Song et al. 2019)."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(dim, heads, dropout=dropout, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, fields, dim) to the same shape."""
        attended: Tensor = self.attention(x, x, x, need_weights=False)[0]
        return attended


class AttentionStack(nn.Module):
    """Sequence of `depth` self-attention layers; all but the last are `layers.*`, the last is `last`.

    Raises:
        ConfigError: an option is out of range.
    """

    def __init__(self, dim: int, heads: int, depth: int, dropout: float) -> None:
        super().__init__()
        check_least("attention_layers", depth, 1)
        if heads < 1 or dim % heads:
            raise ConfigError(f"attention_dim ({dim}) must be a multiple of heads ({heads})")
        self.layers = nn.ModuleList(SelfAttention(dim, heads, dropout) for _ in range(depth - 1))
        self.last = SelfAttention(dim, heads, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, fields, dim) to the same shape."""
        for layer in self.layers:
            x = layer(x)
        return self.last(x)


class Attended(nn.Module):
    """ReLU of attention output plus residual, a module so that it can be a feedback point."""

    def forward(self, attended: Tensor, residual: Tensor) -> Tensor:
        """Map two (batch, fields, dim) to (batch, fields * dim)."""
        return torch.relu(attended + residual).flatten(1)
