"""Click models, from integer ids (batch, fields) to logits (batch,).

The logits pass through a module `logit` with shape (batch, 1), where the error is taken. `first_order_std` is the
standard deviation of the initial first-order weights: 1 in the published runs, 0 is the usual choice.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from benchmarks.families.recommenders.layers import (
    Attended,
    AttentionStack,
    Concatenation,
    CrossNetwork,
    FieldTable,
    FirstOrder,
    Logarithmic,
    Mlp,
    PairwiseProducts,
)
from benchmarks.registry import MODELS
from benchmarks.utils.values import check_probability


@MODELS.register("fm")
class FactorizationMachine(nn.Module):
    """Factorisation machine: first-order weights plus pairwise inner products (Rendle 2010)."""

    def __init__(self, field_sizes: Sequence[int], embedding_dim: int = 16, first_order_std: float = 1.0) -> None:
        super().__init__()
        self.first_order = FirstOrder(field_sizes, first_order_std)
        self.embedding = FieldTable(field_sizes, embedding_dim)
        self.pairs = PairwiseProducts()
        self.logit = nn.Identity()

    def forward(self, ids: Tensor) -> Tensor:
        """Map ids (batch, fields) to logits (batch,)."""
        return self.logit(self.first_order(ids) + self.pairs(self.embedding(ids))).squeeze(1)


@MODELS.register("deepfm")
class DeepFM(nn.Module):
    """DeepFM: the sum of a factorisation machine and an MLP on the same embeddings (Guo et al. 2017)."""

    def __init__(
        self,
        field_sizes: Sequence[int],
        embedding_dim: int = 10,
        hidden: Sequence[int] = (400, 400, 400),
        dropout: float = 0.5,
        first_order_std: float = 1.0,
    ) -> None:
        super().__init__()
        self.first_order = FirstOrder(field_sizes, first_order_std)
        self.embedding = FieldTable(field_sizes, embedding_dim)
        self.pairs = PairwiseProducts()
        self.mlp = Mlp(len(field_sizes) * embedding_dim, hidden, dropout)
        self.logit = nn.Identity()

    def forward(self, ids: Tensor) -> Tensor:
        """Map ids (batch, fields) to logits (batch,)."""
        embedded = self.embedding(ids)
        return self.logit(self.first_order(ids) + self.pairs(embedded) + self.mlp(embedded.flatten(1))).squeeze(1)


@MODELS.register("dcn")
class DeepCrossNetwork(nn.Module):
    """Deep & Cross Network: parallel cross layers and MLP, concatenated for a linear output (Wang et al. 2017)."""

    def __init__(
        self,
        field_sizes: Sequence[int],
        embedding_dim: int = 16,
        cross_layers: int = 6,
        hidden: Sequence[int] = (1024, 1024),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        features = len(field_sizes) * embedding_dim
        self.embedding = FieldTable(field_sizes, embedding_dim)
        self.flat = nn.Flatten(1)
        self.cross = CrossNetwork(features, cross_layers)
        self.mlp = Mlp(features, hidden, dropout, output=False)
        self.stack = Concatenation()
        self.output = nn.Linear(features + hidden[-1], 1)
        self.logit = nn.Identity()

    def forward(self, ids: Tensor) -> Tensor:
        """Map ids (batch, fields) to logits (batch,)."""
        flat = self.flat(self.embedding(ids))
        return self.logit(self.output(self.stack(self.cross(flat), self.mlp(flat)))).squeeze(1)


@MODELS.register("autoint")
class AutoInt(nn.Module):
    """AutoInt: the sum of self-attention over fields, first-order weights and an MLP (Song et al. 2019)."""

    def __init__(
        self,
        field_sizes: Sequence[int],
        embedding_dim: int = 16,
        attention_dim: int = 32,
        heads: int = 2,
        attention_layers: int = 3,
        hidden: Sequence[int] = (400, 400, 400),
        dropout: float = 0.0,
        first_order_std: float = 1.0,
    ) -> None:
        super().__init__()
        check_probability("dropout", dropout)
        fields = len(field_sizes)
        self.first_order = FirstOrder(field_sizes, first_order_std)
        self.embedding = FieldTable(field_sizes, embedding_dim)
        self.project = nn.Linear(embedding_dim, attention_dim)
        self.attention = AttentionStack(attention_dim, heads, attention_layers, dropout)
        self.residual = nn.Linear(embedding_dim, attention_dim)
        self.attended = Attended()
        self.output = nn.Linear(fields * attention_dim, 1)
        self.mlp = Mlp(fields * embedding_dim, hidden, dropout)
        self.logit = nn.Identity()

    def forward(self, ids: Tensor) -> Tensor:
        """Map ids (batch, fields) to logits (batch,)."""
        embedded = self.embedding(ids)
        attended = self.attended(self.attention(self.project(embedded)), self.residual(embedded))
        return self.logit(self.first_order(ids) + self.output(attended) + self.mlp(embedded.flatten(1))).squeeze(1)


@MODELS.register("afn")
class AdaptiveFactorization(nn.Module):
    """AFN: an MLP on logarithmic neurons, which learn the order of interactions (Cheng et al. 2020)."""

    def __init__(
        self,
        field_sizes: Sequence[int],
        embedding_dim: int = 10,
        neurons: int = 1500,
        hidden: Sequence[int] = (400, 400, 400),
        dropout: float = 0.0,
        first_order_std: float = 1.0,
    ) -> None:
        super().__init__()
        self.first_order = FirstOrder(field_sizes, first_order_std)
        self.embedding = FieldTable(field_sizes, embedding_dim)
        self.logarithmic = Logarithmic(len(field_sizes), neurons)
        self.mlp = Mlp(neurons * embedding_dim, hidden, dropout)
        self.logit = nn.Identity()

    def forward(self, ids: Tensor) -> Tensor:
        """Map ids (batch, fields) to logits (batch,)."""
        return self.logit(self.first_order(ids) + self.mlp(self.logarithmic(self.embedding(ids)))).squeeze(1)
