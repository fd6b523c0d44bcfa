"""`memory="recompute"` on models that keep something between calls: the gradients of `keep`, or one refusal."""

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import dfa
from tests.dfa.reference import assert_same
from tests.dfa.refusals import assert_right_or_refused, one_step

Batch = tuple[Tensor, Tensor]


class Cache:
    """Keys of earlier calls, as language models keep them."""

    def __init__(self) -> None:
        self.keys: Tensor | None = None

    def update(self, keys: Tensor) -> Tensor:
        self.keys = keys.clone() if self.keys is None else torch.cat([self.keys, keys])
        return self.keys


class Slotted:
    """A cache without a dictionary of attributes, whose keys are in a queue."""

    __slots__ = ("keys",)

    def __init__(self) -> None:
        self.keys: deque[Tensor] = deque()

    def update(self, keys: Tensor) -> Tensor:
        self.keys.append(keys.clone())
        return torch.cat(list(self.keys))


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

    def __init__(self, cache: type = Cache) -> None:
        super().__init__()
        self.cache = cache
        self.embed, self.blocks = nn.Linear(5, 6), nn.ModuleList(Reading() for _ in range(2))
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for block in self.blocks:
            x = block(x, cache=self.cache())
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


class Balanced(Routed):
    """Keeps a loss of its own, which is the output of no module."""

    def forward(self, x: Tensor) -> Tensor:
        shares = self.gate(x).softmax(1)
        self.loss = shares.mean(0).square().sum()
        return x * shares


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
    "a cache in slots": (partial(Cached, Slotted), ["blocks.*"], ["head"]),
    "an encoder and a decoder": (Translating, ["encoder.block", "decoder.*"], ["encoder.norm", "head"]),
    "a loss from within": (Experts, ["blocks.*"], ["head"]),
    "a loss of a block": (lambda: nn.Sequential(Balanced(), Balanced(), nn.Linear(5, 3)), ["0", "1"], ["2"]),
}


REFUSED = {
    "a cache": r"segment 'blocks\.0' changes its argument 'cache' \(Cache\) .* use_cache=False",
    "a cache in slots": r"segment 'blocks\.0' changes its argument 'cache' \(Slotted\) .* use_cache=False",
    "a loss of a block": r"segment '0': a tensor of shape \(\), computed by 'sum', is kept beyond the segment",
    "a loss from within": r"segment 'blocks\.0': a tensor of shape .* computed by 'linear', is kept beyond the segment",
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_said(kind: str, batch: Batch) -> None:
    make, points, error_at = MODELS[kind]
    model = make().double()
    rule = dfa.DirectFeedbackAlignment(model, points, error_at, memory="recompute")
    with pytest.raises(dfa.PointError, match=REFUSED[kind]):
        one_step(rule, model, lambda: cross_entropy(model(batch[0]), batch[1]))
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("kind", MODELS)
def test_gradients_are_those_of_keeping_or_refused(kind: str, batch: Batch) -> None:
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


class Skipping(nn.Module):
    """As a UNet: what the lower half put out before its points goes into the upper half, too."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down, self.up = nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).tanh()
        return self.up(torch.cat([self.down(x), x], 1))


EXACT: dict[str, tuple[Callable[[], nn.Module], list[str], list[str]]] = {
    "an encoder and a decoder": MODELS["an encoder and a decoder"],
    "a connection past a segment": (Skipping, ["down"], ["up"]),
}


@pytest.mark.parametrize("parallel", [1, 2])
@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize("kind", EXACT)
def test_exact_in_spite_of_other_ways(kind: str, passes: int, parallel: int, batch: Batch) -> None:
    """Another part of an error may come through segments that are trained later, and a graph be reached twice."""
    make, points, error_at = EXACT[kind]
    model = make().double()

    def loss() -> Tensor:
        parts = zip(batch[0].chunk(passes), batch[1].chunk(passes), strict=True)
        return torch.stack([cross_entropy(model(x), targets) for x, targets in parts]).sum()

    with dfa.DirectFeedbackAlignment(model, points, error_at) as rule:
        expected = one_step(rule, model, loss)
    assert expected.keys() == dict(model.named_parameters()).keys()
    rule = dfa.DirectFeedbackAlignment(model, points, error_at, memory="recompute", parallel=parallel)
    done: list[nn.Parameter] = []
    rule.after_segment = done.extend
    unused = model(batch[0])
    assert_same(one_step(rule, model, loss), expected, tolerance=1e-12)
    held = {parameter for name, parameter in model.named_parameters() if name.split(".")[0] in ("decoder", "down")}
    assert held <= set(done) and len(done) == len(set(done))
    assert len(rule.hooks.records) == len(error_at)  # of the pass that no loss has used
    assert unused.requires_grad


def test_two_passes_that_share_an_input(batch: Batch) -> None:
    """What both hang on is computed once, outside of the model."""

    class Conditioned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block, self.head = nn.Bilinear(5, 4, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor, condition: Tensor) -> Tensor:
            return self.head(self.block(x, condition.expand(len(x), -1)))

    model, source = Conditioned().double(), torch.randn(4, dtype=torch.double, requires_grad=True)

    def loss() -> Tensor:
        condition = source.tanh()
        parts = zip(batch[0].chunk(2), batch[1].chunk(2), strict=True)
        return torch.stack([cross_entropy(model(x, condition), targets) for x, targets in parts]).sum()

    found: list[dict[str, Tensor]] = []
    for memory in ("keep", "recompute"):
        source.grad = None
        with dfa.RULES.build("dfa", model, "block", memory=memory) as rule:
            trained = one_step(rule, model, loss)
        assert source.grad is not None
        found.append({**trained, "source": source.grad})
    assert_same(found[1], found[0], tolerance=1e-12)


def test_error_that_arrives_by_two_ways(batch: Batch) -> None:
    """A loss on the encoder's output itself, beside what comes through the decoder."""
    model = Translating().double()
    read: list[Tensor] = []
    model.encoder["norm"].register_forward_hook(lambda module, arguments, output: read.append(output))

    def loss() -> Tensor:
        scores = model(batch[0])
        return cross_entropy(scores, batch[1]) + read[-1].square().mean()

    options: dict[str, Any] = {"points": {"encoder.block": "encoder.norm", "decoder.*": "head"}}
    with dfa.DirectFeedbackAlignment(model, **options) as rule:
        model.encoder["norm"].register_forward_hook(lambda module, arguments, output: read.append(output))
        expected = one_step(rule, model, loss)
    rule = dfa.DirectFeedbackAlignment(model, **options, memory="recompute")
    model.encoder["norm"].register_forward_hook(lambda module, arguments, output: read.append(output))
    assert_same(one_step(rule, model, loss), expected, tolerance=1e-12)


def test_loss_past_the_error_tensor_is_refused(batch: Batch) -> None:
    """It goes down through what the segments' inputs came from, which autograd goes through once."""

    class Auxiliary(Skipping):
        def forward(self, x: Tensor) -> Any:
            return super().forward(x), self.stem(x).tanh()

    model = Auxiliary().double()
    stems: list[Tensor] = []
    model.stem.register_forward_hook(lambda module, arguments, output: stems.append(output))
    rule = dfa.DirectFeedbackAlignment(model, "down", memory="recompute")
    scores, _ = model(batch[0])
    with pytest.raises(dfa.PointError, match="meets a part of the graph twice"):
        rule.backward(cross_entropy(scores, batch[1]) + stems[0].square().mean())


def test_lazily_cached_values_are_no_change(batch: Batch) -> None:
    """An argument that computes something at the first time it is asked, and keeps it."""

    class Scale:
        def __init__(self) -> None:
            self.value: Tensor | None = None

        def get(self) -> Tensor:
            self.value = torch.full((6,), 2.0, dtype=torch.double) if self.value is None else self.value
            return self.value

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 6)

        def forward(self, x: Tensor, scale: Scale) -> Tensor:
            return self.layer(x) * scale.get()

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.block, self.head = nn.Linear(5, 6), Scaled(), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.block(self.embed(x), scale=Scale()))

    model = Net().double()

    def loss() -> Tensor:
        return cross_entropy(model(batch[0]), batch[1])

    with dfa.DirectFeedbackAlignment(model, "block") as rule:
        expected = one_step(rule, model, loss)
    assert_same(one_step(dfa.DirectFeedbackAlignment(model, "block", memory="recompute"), model, loss), expected)


def test_threads_for_segments_beside_threads_for_operations(mlp: nn.Sequential) -> None:
    """Measured, they are slower than either (`docs/parallel.md`)."""
    torch.set_num_threads(2)  # the fixture of all tests here puts it back
    with pytest.raises(dfa.PointError, match=r"parallel=2 on a CPU .* torch\.set_num_threads\(1\)"):
        dfa.DirectFeedbackAlignment(mlp, ["1", "3"], memory="recompute", parallel=2)
    torch.set_num_threads(1)
    dfa.DirectFeedbackAlignment(mlp, ["1", "3"], memory="recompute", parallel=2).close()
