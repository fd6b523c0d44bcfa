"""Causal self-attention: scaled dot product, fixed patterns, and the dense and random Synthesizer."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.errors import ConfigError

FIXED_PATTERNS = 4


class DotProductAttention(nn.Module):
    """Scaled dot-product attention (Vaswani et al., 2017) over earlier positions and the position itself.

    Args:
        width: of the input and the output.
        heads: the width is split among them.
        dropout: on the attention weights.
        window: longest sequence; not needed here.
    """

    def __init__(self, width: int, heads: int, dropout: float, window: int) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.project = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.project.weight)  # as in nn.MultiheadAttention, of all three at once
        nn.init.zeros_(self.project.bias)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(columns, length, width) → the same shape."""
        query, key, value = (_split(part, self.heads) for part in self.project(x).chunk(3, dim=-1))
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=True)
        return self.out(_join(mixed))


class WeightedAttention(nn.Module):
    """Attention whose weights do not compare positions with each other; `weights` says where they come from."""

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
        """How each position weighs the others: (columns, heads, length, length), or what broadcasts to it."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """(columns, length, width) → the same shape."""
        return self.out(_join(self.dropout(self.weights(x)) @ _split(self.value(x), self.heads)))


class FixedAttention(WeightedAttention):
    """Four heads with fixed patterns (Raganato et al., 2020), those of a language model: nothing to the right.

    The heads look at the position itself, the one before, the larger context to the left, and the first position.
    """

    pattern: Tensor

    def __init__(self, width: int, heads: int, dropout: float, window: int) -> None:
        super().__init__(width, heads, dropout, window)
        if heads != FIXED_PATTERNS:
            raise ConfigError(f"attention 'fixed' has {FIXED_PATTERNS} heads, one for each pattern, not {heads}")
        self.register_buffer("pattern", fixed_patterns(window), persistent=False)

    def weights(self, x: Tensor) -> Tensor:
        length = x.shape[1]
        return self.pattern[:, :length, :length].to(x.dtype)


class DenseSynthesizer(WeightedAttention):
    """Weights computed from each position alone by a small network (Tay et al., 2021)."""

    def __init__(self, width: int, heads: int, dropout: float, window: int) -> None:
        super().__init__(width, heads, dropout, window)
        self.window = window
        self.scores = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, heads * window))

    def weights(self, x: Tensor) -> Tensor:
        columns, length, _ = x.shape
        scores = self.scores(x).view(columns, length, self.heads, self.window).transpose(1, 2)
        return causal_softmax(scores[..., :length])


class RandomSynthesizer(WeightedAttention):
    """Weights that are learned for each pair of positions, whatever stands there (Tay et al., 2021)."""

    def __init__(self, width: int, heads: int, dropout: float, window: int) -> None:
        super().__init__(width, heads, dropout, window)
        self.scores = nn.Parameter(torch.empty(heads, window, window))
        nn.init.xavier_uniform_(self.scores)

    def weights(self, x: Tensor) -> Tensor:
        length = x.shape[1]
        return causal_softmax(self.scores[:, :length, :length])


ATTENTIONS: dict[str, type[nn.Module]] = {
    "dot_product": DotProductAttention,
    "fixed": FixedAttention,
    "dense_synthesizer": DenseSynthesizer,
    "random_synthesizer": RandomSynthesizer,
}


def causal_softmax(scores: Tensor) -> Tensor:
    """Softmax over the last dimension of (…, length, length), positions to the right left out."""
    length = scores.shape[-1]
    ahead = torch.ones(length, length, dtype=torch.bool, device=scores.device).triu(1)
    return scores.masked_fill(ahead, -torch.inf).softmax(dim=-1)


def fixed_patterns(length: int) -> Tensor:
    """(4, length, length); row i of a pattern sums to one over the positions 0…i.

    The larger context to the left weighs position j with (j + 1)³ and leaves out the two nearest; where there is no
    such position, and where there is none before, a head looks at the position itself.
    """
    itself = torch.eye(length)
    before = torch.diag(torch.ones(length - 1), -1)
    before[0, 0] = 1.0
    context = torch.arange(1.0, length + 1).pow(3).expand(length, length).tril(-2)
    context = torch.where(torch.arange(length)[:, None] < 2, itself, context)
    first = torch.zeros(length, length)
    first[:, 0] = 1.0
    return torch.stack([itself, before, context / context.sum(1, keepdim=True), first])


def _split(x: Tensor, heads: int) -> Tensor:
    """(columns, length, width) → (columns, heads, length, width / heads)."""
    columns, length, width = x.shape
    return x.view(columns, length, heads, width // heads).transpose(1, 2)


def _join(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)
