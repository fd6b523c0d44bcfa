"""Weights read as other numbers, that lie in a larger tensor, multiply a vector, or meet derivatives in a model."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import dfa
from tests.dfa.reference import as_array, assert_close

SEQUENTIAL: dict[str, dict[str, Any]] = {"fa": {}, "sign_symmetry": {}, "kolen_pollack": {"decay": 0.0}}


class _Through(torch.autograd.Function):
    """A product whose signal goes through another factor."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, product: Callable[[Tensor, Tensor], Tensor], weight: Tensor, other: Tensor) -> Any:
        ctx.product, ctx.other, ctx.shape = product, other, x
        return product(x.detach(), weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        x = ctx.shape.detach().requires_grad_()
        with torch.enable_grad():
            (signal,) = torch.autograd.grad(ctx.product(x, ctx.other), x, gradients)
        return signal, None, None, None


class Gate(nn.Module):
    """A spectral gate, whose real parameter is read as complex numbers."""

    def __init__(self, product: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.below, self.above, self.product = nn.Linear(5, 8), nn.Linear(8, 3), product
        self.gate = nn.Parameter(torch.randn(5, 2))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.above(torch.fft.irfft(self.product(torch.fft.rfft(self.below(x).tanh()), self.gate), n=8))
        return out


GATES: list[Callable[[Tensor, Tensor], Tensor]] = [
    lambda x, gate: x * torch.view_as_complex(gate),
    lambda x, gate: x * torch.view_as_complex(gate).conj(),
    lambda x, gate: x @ torch.view_as_complex(gate.expand(5, 5, 2).contiguous()),
]


@pytest.mark.parametrize("product", GATES, ids=["product", "conjugate", "matrix"])
@pytest.mark.parametrize("name", SEQUENTIAL)
def test_real_weights_that_are_read_as_complex(name: str, product: Any, batch: tuple[Tensor, Tensor]) -> None:
    model = Gate(product).double()
    rule = dfa.RULES.build(name, model, **SEQUENTIAL[name])
    assert isinstance(rule, dfa.SequentialRule)
    gate, above = (rule.feedback_weight(weight).clone() for weight in ("gate", "above.weight"))
    rule.backward(cross_entropy(model(batch[0]), batch[1]))
    below = model.below(batch[0]).detach().requires_grad_()
    passed = _Through.apply(torch.fft.rfft(below.tanh()), product, model.gate.detach(), gate)
    inner = torch.fft.irfft(passed, n=8)
    logits = _Through.apply(inner, nn.functional.linear, model.above.weight.detach(), above) + model.above.bias.detach()
    (signal,) = torch.autograd.grad(cross_entropy(logits, batch[1]), below)
    assert_close(model.below.get_parameter("weight").grad, as_array(signal.T @ batch[0]))
    assert rule.replaced == {"gate", "above.weight"}


def test_frozen_weights_that_are_read_as_complex_are_refused(batch: tuple[Tensor, Tensor]) -> None:
    """The graph does not show how they are read."""
    model = Gate(GATES[0]).double()
    rule = dfa.FeedbackAlignment(model)
    model.gate.requires_grad_(False)
    with pytest.raises(dfa.PointError, match=r"weight\(s\) gate reach MulBackward0 through a function"):
        rule.backward(cross_entropy(model(batch[0]), batch[1]))


@pytest.mark.parametrize("name", SEQUENTIAL)
def test_weights_that_are_a_slice_are_refused(name: str, mlp: nn.Sequential, batch: tuple[Tensor, Tensor]) -> None:
    rows, width = mlp[2].get_parameter("weight").shape
    mlp[2].get_parameter("weight").data = torch.randn(rows, 2 * width, dtype=torch.double)[:, :width]
    rule = dfa.RULES.build(name, mlp)
    with pytest.raises(dfa.PointError, match=r"weight '2\.weight' is a view of other memory"):
        rule.backward(cross_entropy(mlp(batch[0]), batch[1]))


def test_strides_of_a_single_row_do_not_count(batch: tuple[Tensor, Tensor]) -> None:
    class Contiguous(dfa.FeedbackAlignment):
        def feedback_weight(self, name: str) -> Tensor:
            return super().feedback_weight(name).reshape(-1).reshape(self.weights[name].shape)

    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    model[2].get_parameter("weight").data = torch.randn(3, 4, dtype=torch.double).as_strided((1, 4), (7, 1))
    rule = Contiguous(model)
    assert rule.feedback_weight("2.weight").stride() != model[2].get_parameter("weight").stride()
    rule.backward(model(batch[0]).square().sum())
    assert rule.replaced == {"2.weight"}


class OnVectors(nn.Module):
    """Weights that multiply the vector of one sample."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.randn(8, 5))
        self.two = nn.Parameter(torch.randn(6, 8))
        self.three = nn.Parameter(torch.randn(3, 6))

    def forward(self, x: Tensor) -> Tensor:
        return (self.three @ (self.two @ (self.one @ x).tanh()).tanh())[None]


@pytest.mark.parametrize("name", SEQUENTIAL)
def test_weights_that_multiply_a_vector(name: str) -> None:
    model, x = OnVectors().double(), torch.randn(5, dtype=torch.double)
    rule = dfa.RULES.build(name, model, **SEQUENTIAL[name])
    assert isinstance(rule, dfa.SequentialRule)
    two, three = (rule.feedback_weight(weight).clone() for weight in ("two", "three"))
    rule.backward(cross_entropy(model(x), torch.tensor([1])))
    first = torch.tanh(model.one @ x)
    second = torch.tanh(model.two @ first)
    error = torch.softmax(model.three @ second, 0) - torch.tensor([0.0, 1.0, 0.0], dtype=torch.double)
    signal = (three.T @ error) * (1 - second.square())
    assert_close(model.two.grad, as_array(torch.outer(signal, first).detach()))
    signal = (two.T @ signal) * (1 - first.square())
    assert_close(model.one.grad, as_array(torch.outer(signal, x).detach()))


class WithTangents(nn.Module):
    """Returns a layer's output and its derivative along a direction, as physics-informed networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.below, self.block, self.above = nn.Linear(5, 4), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.below(x)
        value, tangent = torch.func.jvp(self.block, (hidden,), (hidden.tanh(),))  # type: ignore[misc]
        out: Tensor = self.above(value + tangent)
        return out


def test_derivatives_forward_in_a_model(batch: tuple[Tensor, Tensor]) -> None:
    """Of a linear layer the derivative along t is W t, so that both signals go through B."""
    model = WithTangents().double()
    rule = dfa.FeedbackAlignment(model)
    block, above = (rule.feedback_weight(weight).clone() for weight in ("block.weight", "above.weight"))
    output = model(batch[0])
    output.retain_grad()
    rule.backward(cross_entropy(output, batch[1]))
    assert output.grad is not None
    signal, slope = output.grad @ above @ block, 1 - torch.tanh(model.below(batch[0])).square()
    assert_close(model.below.get_parameter("weight").grad, as_array((signal * (1 + slope)).T.detach() @ batch[0]))
    assert rule.replaced == {"block.weight", "above.weight"}
