"""Decoder-only Transformer; one module for all training rules."""

import math

import torch
from torch import Tensor, nn

from benchmarks.errors import ConfigError
from benchmarks.families.language.attention import ATTENTIONS
from benchmarks.registry import MODELS
from benchmarks.utils.values import check_known

NORMALISATIONS = ("post", "pre", "none")
INITIAL_RANGE = 0.1
"""Bound of the uniform initialisation of embedding and decoder weights."""


@MODELS.register("transformer")
class Transformer(nn.Module):
    """Embedding, blocks of self-attention and feed-forward layers, linear decoder (Vaswani et al., 2017).

    Modules that a configuration may name as feedback points: `embedding`; of every block `attended` (after the
    attention's LayerNorm), `hidden` (after the feed-forward's ReLU and dropout) and the block itself; `last`, the block
    before the decoder. It is not part of `blocks` because the error is usually taken at its output.

    Args:
        vocabulary: number of tokens.
        window: longest sequence, in tokens.
        width: width of embeddings and of every block's output.
        blocks: number of blocks, `last` included.
        heads: heads per attention.
        hidden: width of the feed-forward layers.
        dropout: dropout of embeddings, attention weights, attention output, hidden layer and feed-forward output.
        attention: "dot_product", "fixed" (four heads), "dense_synthesizer" or "random_synthesizer".
        normalisation: LayerNorm after each residual sum ("post"), before each layer ("pre"), or "none".
        tied: whether the decoder shares the weights of the embedding.

    Raises:
        ConfigError: an option is unknown or out of range.
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
        check_known("attention", attention, ATTENTIONS)
        check_known("normalisation", normalisation, NORMALISATIONS)
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
        """Map token ids (columns, length) to scores of the next token (columns, length, vocabulary)."""
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x)
        return self.decoder(self.norm(self.last(x)))


class Embedding(nn.Module):
    """Token embedding × √width plus sinusoidal positions, then dropout (Vaswani et al., 2017)."""

    positions: Tensor

    def __init__(self, vocabulary: int, window: int, width: int, dropout: float) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.dropout = nn.Dropout(dropout)
        self.scale = math.sqrt(width)
        nn.init.uniform_(self.tokens.weight, -INITIAL_RANGE, INITIAL_RANGE)
        self.register_buffer("positions", sinusoids(window, width), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map token ids (columns, length) to (columns, length, width)."""
        return self.dropout(self.tokens(tokens) * self.scale + self.positions[: tokens.shape[1]])


class Block(nn.Module):
    """Self-attention and a feed-forward layer, each with a residual connection."""

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
        """Map (columns, length, width) to the same shape."""
        x = self.attended(x)
        return self.norm_after(x + self.out(self.hidden(self.norm_before(x))))


class Attended(nn.Module):
    """Self-attention with its residual connection."""

    def __init__(self, attention: nn.Module, width: int, dropout: float, normalisation: str) -> None:
        super().__init__()
        self.norm_before = _norm(width, normalisation == "pre")
        self.attention = attention
        self.dropout = nn.Dropout(dropout)
        self.norm_after = _norm(width, normalisation == "post")

    def forward(self, x: Tensor) -> Tensor:
        """Map (columns, length, width) to the same shape."""
        return self.norm_after(x + self.dropout(self.attention(self.norm_before(x))))


def sinusoids(length: int, width: int) -> Tensor:
    """Return positional encodings (length, width): sine in even, cosine in odd dimensions, wavelengths 2π to 2π·10⁴."""
    angles = torch.arange(length)[:, None] * torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)


def _norm(width: int, wanted: bool) -> nn.Module:
    return nn.LayerNorm(width) if wanted else nn.Identity()
