"""A decoder-only Transformer for language, written once for all rules."""

import math

import torch
from torch import Tensor, nn

from benchmarks.errors import ConfigError
from benchmarks.families.language.attention import ATTENTIONS
from benchmarks.registry import MODELS

NORMALISATIONS = ("post", "pre", "none")
INITIAL_RANGE = 0.1
"""Weights of embedding and decoder start uniform within ± this."""


@MODELS.register("transformer")
class Transformer(nn.Module):
    """Embedding, blocks of self-attention and feed-forward layers, linear decoder (Vaswani et al., 2017).

    Stages that a configuration may want to name: `embedding`; of every block `attended` (after the attention's
    LayerNorm), `hidden` (after the feed-forward's ReLU and dropout) and the block itself; `last`, the block before
    the decoder, which stands apart from `blocks` because the error is usually taken at its output.

    Args:
        vocabulary: number of tokens.
        window: longest sequence, in tokens.
        width: of embeddings and of every block's output.
        blocks: number of blocks, the last one included.
        heads: per attention.
        hidden: width of the feed-forward layers.
        dropout: after embedding, attention weights, attention, ReLU and feed-forward.
        attention: "dot_product", "fixed" (four heads), "dense_synthesizer" or "random_synthesizer".
        normalisation: LayerNorm after each residual sum ("post"), before each layer ("pre"), or "none".
        tied: use the embedding's weights in the decoder.

    Raises:
        ConfigError: an option out of range.
    """

    def __init__(
        self,
        vocabulary: int,
        window: int,
        *,
        width: int = 512,
        blocks: int = 6,
        heads: int = 8,
        hidden: int = 2048,
        dropout: float = 0.1,
        attention: str = "dot_product",
        normalisation: str = "post",
        tied: bool = False,
    ) -> None:
        super().__init__()
        if attention not in ATTENTIONS:
            raise ConfigError(f"unknown attention '{attention}'; known: {', '.join(ATTENTIONS)}")
        if normalisation not in NORMALISATIONS:
            raise ConfigError(f"unknown normalisation '{normalisation}'; known: {', '.join(NORMALISATIONS)}")
        if blocks < 1 or heads < 1 or width % (2 * heads):
            raise ConfigError(
                f"{blocks} blocks of width {width} with {heads} heads: width must be a multiple of 2·heads"
            )
        shape = (width, heads, hidden, dropout, attention, normalisation, window)
        self.embedding = Embedding(vocabulary, window, width, dropout)
        self.blocks = nn.ModuleList(Block(*shape) for _ in range(blocks - 1))
        self.last = Block(*shape)
        self.norm = nn.LayerNorm(width) if normalisation == "pre" else nn.Identity()
        self.decoder = nn.Linear(width, vocabulary)
        nn.init.uniform_(self.decoder.weight, -INITIAL_RANGE, INITIAL_RANGE)
        nn.init.zeros_(self.decoder.bias)
        if tied:
            self.decoder.weight = self.embedding.tokens.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """Token ids (columns, length) → scores of the next token (columns, length, vocabulary)."""
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x)
        return self.decoder(self.norm(self.last(x)))


class Embedding(nn.Module):
    """Token embedding × √width plus sinusoidal positions, then dropout."""

    positions: Tensor

    def __init__(self, vocabulary: int, window: int, width: int, dropout: float) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.dropout = nn.Dropout(dropout)
        self.scale = math.sqrt(width)
        nn.init.uniform_(self.tokens.weight, -INITIAL_RANGE, INITIAL_RANGE)
        self.register_buffer("positions", sinusoids(window, width), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """(columns, length) → (columns, length, width)."""
        return self.dropout(self.tokens(tokens) * self.scale + self.positions[: tokens.shape[1]])


class Block(nn.Module):
    """Self-attention and a feed-forward layer, each beside a residual path."""

    def __init__(
        self, width: int, heads: int, hidden: int, dropout: float, attention: str, normalisation: str, window: int
    ) -> None:
        super().__init__()
        self.attended = Attended(ATTENTIONS[attention](width, heads, dropout, window), width, dropout, normalisation)
        self.norm_before = _norm(width, normalisation == "pre")
        self.hidden = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout))
        self.out = nn.Sequential(nn.Linear(hidden, width), nn.Dropout(dropout))
        self.norm_after = _norm(width, normalisation == "post")

    def forward(self, x: Tensor) -> Tensor:
        """(columns, length, width) → the same shape."""
        x = self.attended(x)
        return self.norm_after(x + self.out(self.hidden(self.norm_before(x))))


class Attended(nn.Module):
    """Self-attention beside its residual path."""

    def __init__(self, attention: nn.Module, width: int, dropout: float, normalisation: str) -> None:
        super().__init__()
        self.norm_before = _norm(width, normalisation == "pre")
        self.attention = attention
        self.dropout = nn.Dropout(dropout)
        self.norm_after = _norm(width, normalisation == "post")

    def forward(self, x: Tensor) -> Tensor:
        """(columns, length, width) → the same shape."""
        return self.norm_after(x + self.dropout(self.attention(self.norm_before(x))))


def sinusoids(length: int, width: int) -> Tensor:
    """Positions as (length, width): sine in even, cosine in odd dimensions, wavelengths from 2π to 10,000·2π."""
    angles = torch.arange(length)[:, None] * torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)


def _norm(width: int, wanted: bool) -> nn.Module:
    return nn.LayerNorm(width) if wanted else nn.Identity()
