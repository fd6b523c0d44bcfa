"""`memory="recompute"` on models that keep something between calls: the gradients of `keep`, or one refusal."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import dfa
from tests.dfa.refusals import assert_right_or_refused, one_step

Batch = tuple[Tensor, Tensor]


class Cache:
    """Keys of earlier calls, as language models keep them."""

    def __init__(self) -> None:
        self.keys: list[Tensor] = []

    def update(self, keys: Tensor) -> Tensor:
        self.keys.append(keys)
        return torch.cat(self.keys)


class Reading(nn.Module):
    """Every row looks at the keys of all rows that its cache has."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: Tensor, cache: Any) -> Tensor:
        keys = cache.update(self.key(x))
        return x + (self.query(x) @ keys.T).softmax(1) @ keys


class Cached(nn.Module):
    """Makes a new cache in every forward pass and hands it to its blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.blocks = nn.Linear(5, 6), nn.ModuleList(Reading() for _ in range(2))
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for block in self.blocks:
            x = block(x, cache=Cache())
        return self.head(x)


class Translating(nn.Module):
    """Every block of the decoder reads what the encoder put out."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.ModuleDict({"block": nn.Sequential(nn.Linear(5, 6), nn.Tanh()), "norm": nn.LayerNorm(6)})
        self.decoder = nn.ModuleList(nn.Bilinear(6, 6, 6) for _ in range(2))
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        read = self.encoder["norm"](self.encoder["block"](x))
        y = torch.ones_like(read)
        for block in self.decoder:
            y = block(y, read)
        return self.head(y)


class Routed(nn.Module):
    """Mixes its features by weights of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x).softmax(1)


class Experts(nn.Module):
    """Notes how its blocks routed, for a loss that balances experts."""

    def __init__(self) -> None:
        super().__init__()
        blocks = [Routed() for _ in range(2)]
        self.blocks, self.head = nn.ModuleList(blocks), nn.Linear(5, 3)
        self.routed: list[Tensor] = []
        for block in blocks:
            block.gate.register_forward_hook(lambda module, arguments, output: self.routed.append(output))

    def forward(self, x: Tensor) -> Tensor:
        self.routed.clear()
        for block in self.blocks:
            x = block(x)
        return self.head(x)


MODELS: dict[str, tuple[Callable[[], nn.Module], list[str], list[str]]] = {
    "a cache": (Cached, ["blocks.*"], ["head"]),
    "an encoder and a decoder": (Translating, ["encoder.block", "decoder.*"], ["encoder.norm", "head"]),
    "a loss from within": (Experts, ["blocks.*"], ["head"]),
}


@pytest.mark.parametrize("kind", MODELS)
def test_gradients_are_those_of_keeping(kind: str, batch: Batch) -> None:
    make, points, error_at = MODELS[kind]
    model = make().double()

    def loss() -> Tensor:
        value = cross_entropy(model(batch[0]), batch[1])
        return value + sum(gate.square().mean() for gate in model.routed) if isinstance(model, Experts) else value

    rule = dfa.DirectFeedbackAlignment(model, points, error_at)
    expected = one_step(rule, model, loss)
    rule.close()
    rule = dfa.DirectFeedbackAlignment(model, points, error_at, memory="recompute")
    assert_right_or_refused(lambda: one_step(rule, model, loss), expected)


def test_skip_connections_that_both_halves_hold(batch: Batch) -> None:
    """As in a UNet: what the lower half put out before its points goes into the upper half, too."""

    class Skipping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.down, self.up = nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(12, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x).tanh()
            return self.up(torch.cat([self.down(x), x], 1))

    model = Skipping().double()

    def loss() -> Tensor:
        return cross_entropy(model(batch[0]), batch[1])

    rule = dfa.DirectFeedbackAlignment(model, "down", "up")
    expected = one_step(rule, model, loss)
    rule.close()
    rule = dfa.DirectFeedbackAlignment(model, "down", "up", memory="recompute")
    assert_right_or_refused(lambda: one_step(rule, model, loss), expected)
