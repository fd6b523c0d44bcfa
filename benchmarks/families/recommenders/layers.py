"""The parts that the click models share; every place where feedback can enter is a module of its own.

Formulas: factorisation machine, Rendle 2010; cross layer, Wang et al. 2017; logarithmic neurons, Cheng et al. 2020;
self-attention over fields, Song et al. 2019. Ids have shape (batch, fields) and count from 0 within each field.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.errors import ConfigError


class FieldTable(nn.Module):
    """One embedding table for all fields: the rows of a field follow those of the field before it.

    Args:
        field_sizes: number of values of each field.
        dim: entries per value.
        std: standard deviation of a normal start (0 = zeros); None = Xavier-uniform over the whole table.

    Shape: (batch, fields) integers → (batch, fields, dim).
    """

    offsets: Tensor

    def __init__(self, field_sizes: Sequence[int], dim: int, std: float | None = None) -> None:
        super().__init__()
        sizes = [int(size) for size in field_sizes]
        if not sizes or min(sizes) < 1 or sum(sizes) >= 2**31:
            raise ConfigError("field_sizes must be positive and sum to less than 2**31")
        if dim < 1:
            raise ConfigError(f"embedding_dim must be at least 1, got {dim}")
        self.table = nn.Embedding(sum(sizes), dim)
        # int32 is what the caches hold; the lookup takes it as it is.
        offsets = torch.tensor([0, *np.cumsum(sizes)[:-1]], dtype=torch.int32)
        self.register_buffer("offsets", offsets, persistent=False)
        if std is None:
            nn.init.xavier_uniform_(self.table.weight)
        else:
            nn.init.normal_(self.table.weight, std=std)

    def forward(self, ids: Tensor) -> Tensor:
        return self.table(ids + self.offsets)


class FirstOrder(nn.Module):
    """A scalar weight for every value, summed over fields, plus a bias. Shape: (batch, fields) → (batch, 1)."""

    def __init__(self, field_sizes: Sequence[int], std: float) -> None:
        super().__init__()
        self.weights = FieldTable(field_sizes, 1, std)
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, ids: Tensor) -> Tensor:
        return self.weights(ids).sum(dim=1) + self.bias


class Pairs(nn.Module):
    """Sum of the inner products of all pairs of fields, as ½((Σv)² − Σv²). Shape: (batch, fields, dim) → (batch, 1)."""

    def forward(self, embedded: Tensor) -> Tensor:
        difference = embedded.sum(dim=1).square() - embedded.square().sum(dim=1)
        return 0.5 * difference.sum(dim=1, keepdim=True)


class Mlp(nn.Module):
    """Blocks of Linear → BatchNorm → ReLU → Dropout; with `output`, a last Linear to one number.

    Submodules for feedback: `input` (what the first block reads) and `blocks.*`.
    Shape: (batch, in_features) → (batch, 1), or (batch, widths[-1]) without an output layer.
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
        x = self.input(x)
        for block in self.blocks:
            x = block(x)
        return x if self.output is None else self.output(x)


class CrossLayer(nn.Module):
    """x ↦ x₀ (w·x) + b + x. Shape: two of (batch, features) → (batch, features)."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.project = nn.Linear(features, 1, bias=False)
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, x0: Tensor, x: Tensor) -> Tensor:
        return torch.addcmul(self.bias + x, x0, self.project(x))


class CrossNetwork(nn.Module):
    """Cross layers one after the other: `layers.*` are all but the last, which is `last`."""

    def __init__(self, features: int, depth: int) -> None:
        super().__init__()
        if depth < 1:
            raise ConfigError(f"cross_layers must be at least 1, got {depth}")
        self.layers = nn.ModuleList(CrossLayer(features) for _ in range(depth - 1))
        self.last = CrossLayer(features)

    def forward(self, x0: Tensor) -> Tensor:
        x = x0
        for layer in self.layers:
            x = layer(x0, x)
        return self.last(x0, x)


class Stack(nn.Module):
    """Concatenation along the features, as a module so that feedback can enter there."""

    def forward(self, *parts: Tensor) -> Tensor:
        return torch.cat(parts, dim=1)


class Logarithmic(nn.Module):
    """Logarithmic neurons: relu(expm1(W log1p(|v| + 1e-7))) over the fields, flattened.

    W is (neurons, fields), uniform in ±1/sqrt(fields), without bias.
    Shape: (batch, fields, dim) → (batch, neurons * dim).
    """

    def __init__(self, fields: int, neurons: int) -> None:
        super().__init__()
        if neurons < 1:
            raise ConfigError(f"neurons must be at least 1, got {neurons}")
        bound = fields**-0.5
        self.weight = nn.Parameter(torch.empty(neurons, fields).uniform_(-bound, bound))

    def forward(self, embedded: Tensor) -> Tensor:
        # 1e-7 keeps the derivative of log1p∘|·| as in the published model; log1p itself is finite at 0.
        logarithms = torch.log1p(embedded.abs() + 1e-7)
        return torch.relu(torch.expm1(self.weight @ logarithms)).flatten(1)


class SelfAttention(nn.Module):
    """Multi-head self-attention across fields. Shape: (batch, fields, dim) → the same."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(dim, heads, dropout=dropout, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        attended: Tensor = self.attention(x, x, x, need_weights=False)[0]
        return attended


class AttentionStack(nn.Module):
    """Self-attention layers one after the other: `layers.*` are all but the last, which is `last`."""

    def __init__(self, dim: int, heads: int, depth: int, dropout: float) -> None:
        super().__init__()
        if depth < 1:
            raise ConfigError(f"attention_layers must be at least 1, got {depth}")
        if heads < 1 or dim % heads:
            raise ConfigError(f"attention_dim ({dim}) must be a multiple of heads ({heads})")
        self.layers = nn.ModuleList(SelfAttention(dim, heads, dropout) for _ in range(depth - 1))
        self.last = SelfAttention(dim, heads, dropout)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return self.last(x)


class Attended(nn.Module):
    """ReLU of the attention output plus its residual, flattened over fields. Shape: → (batch, fields * dim)."""

    def forward(self, attended: Tensor, residual: Tensor) -> Tensor:
        return torch.relu(attended + residual).flatten(1)


def check_probability(name: str, value: float) -> None:
    """Raises ConfigError unless 0 ≤ value < 1."""
    if not 0 <= value < 1:
        raise ConfigError(f"{name} must be in [0, 1), got {value}")
