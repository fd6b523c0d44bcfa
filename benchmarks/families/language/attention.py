"""Causal self-attention: scaled dot product, fixed patterns, and the dense and random Synthesizer.

Activations have shape (columns, length, width); a column is one sequence of the batch.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.errors import ConfigError

FIXED_PATTERNS = 4


class DotProductAttention(nn.Module):
    """Scaled dot-product attention (Vaswani et al., 2017) over earlier positions and the position itself.

    Args:
        width: width of input and output.
        heads: number of heads, which share the width equally.
        dropout: dropout of the attention weights.
        window: longest sequence; not used by this attention.
    """

    def __init__(self, width: int, heads: int, dropout: float, window: int) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.project = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.project.weight)  # as in nn.MultiheadAttention, for all three matrices together
        nn.init.zeros_(self.project.bias)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (columns, length, width) to the same shape."""
        query, key, value = (_split(part, self.heads) for part in self.project(x).chunk(3, dim=-1))
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=True)
        return self.out(_join(mixed))


class WeightedAttention(nn.Module):
    """Attention whose weights do not come from comparing positions; subclasses define `weights`.

    Args:
        width, heads, dropout, window: see `DotProductAttention`.
    """

    def __init__(self, width: int, heads: int, dropout: float, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        nn.init.xavier_uniform_(self.value.weight)
        nn.init.zeros_(self.value.bias)
        nn.init.zeros_(self.out.bias)

    def weights(self, x: Tensor) -> Tensor:
        """Return the weights of all positions for each position, broadcastable to (columns, heads, length, length)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Map (columns, length, width) to the same shape."""
        return self.out(_join(self.dropout(self.weights(x)) @ _split(self.value(x), self.heads)))


class FixedAttention(WeightedAttention):
    """Four heads with fixed causal patterns (Raganato et al., 2020), see `fixed_patterns`.

    Raises:
        ConfigError: `heads` is not 4.
    """

    pattern: Tensor

    def __init__(self, width: int, heads: int, dropout: float, window: int) -> None:
        super().__init__(width, heads, dropout, window)
        if heads != FIXED_PATTERNS:
            raise ConfigError(f"attention 'fixed' needs {FIXED_PATTERNS} heads, one for each pattern, not {heads}")
        self.register_buffer("pattern", fixed_patterns(window), persistent=False)

    def weights(self, x: Tensor) -> Tensor:
        """Return the patterns, (heads, length, length)."""
        length = x.shape[1]
        return self.pattern[:, :length, :length].to(x.dtype)


class DenseSynthesizer(WeightedAttention):
    """Dense Synthesizer (Tay et al., 2021): a small network computes the weights from each position alone."""

    def __init__(self, width: int, heads: int, dropout: float, window: int) -> None:
        super().__init__(width, heads, dropout, window)
        self.window = window
        self.scores = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, heads * window))

    def weights(self, x: Tensor) -> Tensor:
        """Return the weights, (columns, heads, length, length)."""
        columns, length, _ = x.shape
        scores = self.scores(x).view(columns, length, self.heads, self.window).transpose(1, 2)
        return causal_softmax(scores[..., :length])


class RandomSynthesizer(WeightedAttention):
    """Random Synthesizer (Tay et al., 2021): the weights of each pair of positions are parameters."""

    def __init__(self, width: int, heads: int, dropout: float, window: int) -> None:
        super().__init__(width, heads, dropout, window)
        self.scores = nn.Parameter(torch.empty(heads, window, window))
        nn.init.xavier_uniform_(self.scores)

    def weights(self, x: Tensor) -> Tensor:
        """Return the weights, (heads, length, length)."""
        length = x.shape[1]
        return causal_softmax(self.scores[:, :length, :length])


ATTENTIONS: dict[str, type[nn.Module]] = {
    "dot_product": DotProductAttention,
    "fixed": FixedAttention,
    "dense_synthesizer": DenseSynthesizer,
    "random_synthesizer": RandomSynthesizer,
}


def causal_softmax(scores: Tensor) -> Tensor:
    """Return the softmax over the last dimension of (…, length, length), with later positions masked."""
    length = scores.shape[-1]
    ahead = torch.ones(length, length, dtype=torch.bool, device=scores.device).triu(1)
    return scores.masked_fill(ahead, -torch.inf).softmax(dim=-1)


def fixed_patterns(length: int) -> Tensor:
    """Return four causal attention patterns, (4, length, length), whose rows sum to 1.

    They select the position itself, the previous one, the earlier context (weight (j + 1)³ for position j, without the
    two nearest positions), and the first position. Where a pattern has no position, it selects the position itself.
    """
    itself = torch.eye(length)
    previous = torch.diag(torch.ones(length - 1), -1)
    previous[0, 0] = 1.0
    context = torch.arange(1.0, length + 1).pow(3).expand(length, length).tril(-2)
    context = torch.where(torch.arange(length)[:, None] < 2, itself, context)
    first = torch.zeros(length, length)
    first[:, 0] = 1.0
    return torch.stack([itself, previous, context / context.sum(1, keepdim=True), first])


def _split(x: Tensor, heads: int) -> Tensor:
    """Reshape (columns, length, width) to (columns, heads, length, width / heads)."""
    columns, length, width = x.shape
    return x.view(columns, length, heads, width // heads).transpose(1, 2)


def _join(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)
