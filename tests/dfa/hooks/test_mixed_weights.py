"""Weights that the graph hides, and factors made of weights and activations: exchanged, or refused by name."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy

import dfa
from tests.dfa.hooks.test_weights import Batch, Model, signal_below
from tests.dfa.reference import as_array, assert_close, assert_same, gradients
from tests.zoo.exchanged import exchanged_backward

SEQUENTIAL = ["fa", "sign_symmetry", "kolen_pollack"]
DETACHED: dict[str, Callable[[Model, Tensor], Tensor]] = {
    "detached": lambda self, hidden: functional.linear(hidden, self.upper.weight.detach(), self.upper.bias),
    "detached, then turned": lambda self, hidden: hidden @ self.upper.weight.data.t(),
    "detached, in parts": lambda self, hidden: torch.cat(
        [hidden @ part.t() for part in self.upper.weight.detach().split(2)], dim=1
    ),
}


@pytest.mark.parametrize("kind", DETACHED)
@pytest.mark.parametrize("name", SEQUENTIAL)
def test_detached_weights_are_exchanged(name: str, kind: str, batch: Batch) -> None:
    """As where a head is not to learn from a loss: its memory tells which weight it is."""
    model = Model(DETACHED[kind]).double()
    rule = dfa.RULES.build(name, model)
    assert isinstance(rule, dfa.SequentialRule)
    feedback = rule.feedback_weight("upper.weight").clone()
    error, signal = signal_below(model, rule, batch)
    assert_close(signal, as_array(error @ feedback))
    assert rule.replaced == {"upper.weight"} and model.upper.weight.grad is None


@pytest.mark.parametrize("name", SEQUENTIAL)
def test_weights_frozen_in_the_forward_pass_alone(name: str, batch: Batch) -> None:
    """As a GAN's discriminator, while the generator's loss is computed."""
    model = Model(lambda self, hidden: self.upper(hidden)).double()
    rule = dfa.RULES.build(name, model)
    assert isinstance(rule, dfa.SequentialRule)
    feedback = rule.feedback_weight("upper.weight").clone()
    model.upper.requires_grad_(False)
    output = model(batch[0][:1])
    output.retain_grad()
    loss = cross_entropy(output, batch[1][:1])
    model.upper.requires_grad_(True)
    rule.backward(loss)
    assert output.grad is not None
    assert_close(model.lower.bias.grad, as_array(output.grad[0] @ feedback))


def test_copies_of_detached_weights_are_refused(batch: Batch) -> None:
    model = Model(lambda self, hidden: functional.linear(hidden, self.upper.weight.detach())).float()
    rule = dfa.FeedbackAlignment(model)
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(batch[0].float()).sum()
    with pytest.raises(dfa.PointError, match=r"upper\.weight"):
        rule.backward(loss)


def test_gradients_of_weights_beside_frozen_ones_are_exact(batch: Batch) -> None:
    """Frozen rows are what the layer is given: its gradient is made of them, not of what takes their place."""
    model = Model(lambda self, hidden: functional.linear(self.table, self.upper.weight)).double()
    model.table.requires_grad_(False)
    (expected,) = torch.autograd.grad(model(batch[0]).square().sum(), model.upper.weight)
    dfa.FeedbackAlignment(model).backward(model(batch[0]).square().sum())
    torch.testing.assert_close(model.upper.weight.grad, expected)


class Attending(nn.Module):
    """Learned queries that attend to activations."""

    def __init__(self) -> None:
        super().__init__()
        self.lower, self.upper = nn.Linear(5, 4), nn.Linear(4, 3)
        self.queries = nn.Parameter(torch.randn(2, 4))

    def forward(self, x: Tensor) -> Tensor:
        keys = self.lower(x).tanh()[None, None]
        attended = functional.scaled_dot_product_attention(self.queries[None, None], keys, keys)
        return self.upper(attended[0, 0])


@pytest.mark.parametrize("name", SEQUENTIAL)
def test_learned_queries_in_fused_attention_are_refused(name: str, batch: Batch) -> None:
    model = Attending().double()
    rule = dfa.RULES.build(name, model)
    with pytest.raises(dfa.PointError, match=r"queries are part of fused attention's query"):
        rule.backward(model(batch[0]).square().sum())
    model.queries.requires_grad_(False)
    with pytest.raises(dfa.PointError, match=r"queries are part of fused attention's query"):
        rule.backward(model(batch[0]).square().sum())


def test_learned_queries_in_attention_written_out(batch: Batch) -> None:
    model = Attending().double()
    rule = dfa.FeedbackAlignment(model)
    other, upper = rule.feedback_weight("queries"), rule.feedback_weight("upper.weight")
    with rule.paused():
        keys = model.lower(batch[0]).tanh()
        by_feedback = other @ keys.t()
        scores = model.queries @ keys.detach().t() + by_feedback - by_feedback.detach()
        hidden = (scores / 2).softmax(-1) @ keys
        by_feedback = hidden @ upper.t()
        output = model.upper(hidden.detach()) + by_feedback - by_feedback.detach()
    named = dict(model.named_parameters())
    expected = dict(zip(named, torch.autograd.grad(output.square().sum(), list(named.values())), strict=True))
    with sdpa_kernel(SDPBackend.MATH):
        loss = model(batch[0]).square().sum()
    rule.backward(loss)
    assert_same(gradients(model), expected, tolerance=1e-10)


def made(weight: Callable[[Model, Tensor], Tensor]) -> Callable[[Model, Tensor], Tensor]:
    """A layer whose weight is made, also of the model's input."""

    def above(self: Model, hidden: Tensor) -> Tensor:
        return functional.linear(hidden, weight(self, INPUT))

    return above


def convolved(kernel: Callable[[Model], Tensor]) -> Callable[[Model, Tensor], Tensor]:
    return lambda self, hidden: functional.conv1d(hidden[:, None], kernel(self)[:, None, :3])[:, :, 0]


INPUT = torch.randn(5, dtype=torch.double, generator=torch.Generator().manual_seed(1))
CONSTANT = torch.randn(4, 4, dtype=torch.double, generator=torch.Generator().manual_seed(2))
MIXED: dict[str, Callable[[Model, Tensor], Tensor]] = {
    "scaled by columns": made(lambda self, x: self.upper.weight * self.lower(x)),
    "scaled by rows": made(lambda self, x: self.upper.weight * self.lower(x)[:3, None].expand(3, 4)),
    "scaled and normalised": made(
        lambda self, x: functional.normalize(self.upper.weight * self.lower(x), dim=1)[torch.tensor([2, 1, 0])]
    ),
    "fast": made(lambda self, x: self.upper.weight + self.lower(x)[:3, None] * self.lower(x)),
    "in a basis": made(lambda self, x: self.upper.weight @ CONSTANT),
    "smoothed": made(
        lambda self, x: functional.conv1d(self.upper.weight[:, None], CONSTANT[:1, None, :3], padding=1)[:, 0]
    ),
    "of a parameter": made(lambda self, x: self.upper(self.lower.bias)[:, None].expand(3, 4)),
    "times another, detached": made(lambda self, x: self.upper.weight @ self.table.detach()),
    "another, detached, times it": made(lambda self, x: self.table.detach()[:3, :3] @ self.upper.weight),
    "times itself, detached": made(lambda self, x: self.upper.weight * self.upper.weight.detach()),
    "a kernel scaled": convolved(lambda self: self.upper.weight * self.lower(INPUT)),
    "a kernel chosen": convolved(
        lambda self: (self.lower(INPUT).softmax(0) @ self.upper.weight.t().repeat(1, 3)).view(3, 3)
    ),
    "generated, with a bias": lambda self, hidden: functional.linear(hidden, self.upper(CONSTANT).t(), self.upper.bias),
}


@pytest.mark.parametrize("kind", MIXED)
@pytest.mark.parametrize("name", SEQUENTIAL)
def test_weights_made_of_a_weight_and_something_else_are_refused(name: str, kind: str, batch: Batch) -> None:
    """Backpropagation's signal would go through them to the layer below."""
    model = Model(MIXED[kind]).double()
    rule = dfa.RULES.build(name, model)
    with pytest.raises(dfa.PointError, match=r"upper\.weight.*name weights to exchange"):
        rule.backward(model(batch[0]).square().sum())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_weights_that_are_not_to_be_exchanged_may_be_scaled(batch: Batch) -> None:
    model = Model(MIXED["scaled by columns"]).double()
    expected = torch.autograd.grad(model(batch[0]).square().sum(), [model.lower.weight, model.upper.weight])
    dfa.FeedbackAlignment(model, weights="table").backward(model(batch[0]).square().sum())
    torch.testing.assert_close([model.lower.weight.grad, model.upper.weight.grad], list(expected))


class Ordinary(nn.Module):
    """Parts that common models have: each adds or multiplies a weight, or activations with each other."""

    def __init__(self, above: Callable[["Ordinary", Tensor], Tensor]) -> None:
        super().__init__()
        self.lower, self.upper = nn.Linear(5, 4), nn.Linear(4, 3)
        self.q, self.k, self.v = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.position, self.row = nn.Parameter(torch.randn(7, 4)), nn.Parameter(torch.randn(1, 4))
        self.experts = nn.Parameter(torch.randn(4, 4, 4))
        self._above = above

    def forward(self, x: Tensor) -> Tensor:
        return self.upper(self._above(self, self.lower(x).tanh()))


def attention(self: Ordinary, hidden: Tensor) -> Tensor:
    hidden = hidden + self.position
    return hidden + (self.q(hidden) @ self.k(hidden).t()).softmax(-1) @ self.v(hidden)


ORDINARY: dict[str, Callable[[Ordinary, Tensor], Tensor]] = {
    "gate": lambda self, hidden: (self.q(hidden) + self.row) * self.k(hidden).sigmoid(),
    "gain in two dimensions": lambda self, hidden: (self.q(hidden) * self.row) @ self.k(hidden).t() @ hidden,
    "attention with positions": attention,
    "mixture of experts": lambda self, hidden: torch.einsum(
        "be,beo->bo", self.q(hidden).softmax(-1), torch.einsum("bi,eio->beo", hidden, self.experts)
    ),
    "frozen base and adapter": lambda self, hidden: self.q(hidden) + hidden @ self.k.weight[:, :2] @ self.v.weight[:2],
    "linear layer written out": lambda self, hidden: (hidden[:, None] * self.q.weight).sum(-1),
    "a dropout": lambda self, hidden: self.q(functional.dropout(hidden + self.row)) * hidden,
}


@pytest.mark.parametrize("kind", ORDINARY)
def test_ordinary_models_are_exchanged(kind: str, batch: Batch) -> None:
    model = Ordinary(ORDINARY[kind]).double()
    twin = copy.deepcopy(model)
    model.q.requires_grad_("frozen" not in kind)
    rule = dfa.FeedbackAlignment(model)
    feedback = {name: rule.feedback_weight(name).clone() for name in rule.weights}
    torch.manual_seed(0)
    expected = exchanged_backward(twin, lambda model: cross_entropy(model(batch[0]), batch[1]), feedback)
    torch.manual_seed(0)
    rule.backward(cross_entropy(model(batch[0]), batch[1]))
    found = gradients(model)
    assert "lower.weight" in found
    torch.testing.assert_close(found, {name: expected[name] for name in found})
