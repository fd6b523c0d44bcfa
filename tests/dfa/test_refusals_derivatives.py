"""Derivatives of a model by its inputs, which a rule that cuts the graph would get wrong: right or refused."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dfa
from tests.dfa.reference import assert_same, backpropagated
from tests.dfa.refusals import one_step

CUTTING: list[tuple[str, dict[str, Any]]] = [
    ("dfa", {}),
    ("dfa", {"memory": "recompute"}),
    ("identity", {}),
    ("highway", {"waves": 9}),
    ("low_rank", {"rank": 2}),
    ("dkp", {}),
    ("fdfa", {}),
    ("grape", {}),
    ("calibrate", {"rule": "shallow"}),
    ("shallow", {}),
    ("window", {"layers": 0}),
]
NAMES = [f"{name} {options}" for name, options in CUTTING]


def by_autograd(energy: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        return torch.autograd.grad(energy(x).sum(), x, create_graph=True)[0]


def by_backward(energy: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    energy(x).sum().backward(create_graph=True, inputs=[x])
    assert x.grad is not None
    return x.grad


def by_transform(energy: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return torch.func.grad(lambda each: energy(each).sum())(x)


class Potential(nn.Module):
    """Forces, minus the derivative of an energy, as interatomic potentials return them."""

    def __init__(self, derive: Callable[[Callable[[Tensor], Tensor], Tensor], Tensor] = by_autograd) -> None:
        super().__init__()
        self.first, self.act, self.second, self.head = nn.Linear(5, 8), nn.Tanh(), nn.Linear(13, 8), nn.Linear(8, 1)
        self._derive = derive

    def energy(self, x: Tensor) -> Tensor:
        hidden = self.act(self.first(x))
        return self.head(torch.tanh(self.second(torch.cat([hidden, x], -1))))

    def forward(self, x: Tensor) -> Tensor:
        return -self._derive(self.energy, x)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("derive", [by_autograd, by_backward, by_transform])
@pytest.mark.parametrize(("name", "options"), CUTTING, ids=NAMES)
def test_a_model_that_derives_itself(
    name: str, options: dict[str, Any], derive: Any, batch: tuple[Tensor, ...]
) -> None:
    """Its outputs would be others, since the derivative ends where the graph is cut."""
    model = Potential(derive).double()
    with dfa.RULES.build(name, model, ["act"], **options) as rule:
        if name == "calibrate":
            rule.backward(model(batch[0]).square().mean())  # an exact batch
        with pytest.raises(dfa.PointError, match=r"derivative in its forward pass.*'act'|transforms of torch\.func"):
            model(batch[0])
        rule.discard()
        assert torch.overrides._len_torch_function_stack() == 0
        with pytest.raises(dfa.PointError, match=r"derivative in its forward pass.*'act'|transforms of torch\.func"):
            model(batch[0])


@pytest.mark.parametrize("name", ["bp", "fa"])
def test_rules_that_cut_nothing_leave_derivatives_alone(name: str, batch: tuple[Tensor, ...]) -> None:
    model = Potential().double()
    expected = model(batch[0]).detach()
    with dfa.RULES.build(name, model, ["act"]):
        assert torch.equal(model(batch[0]), expected)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("derive", [by_autograd, by_transform])
@pytest.mark.parametrize(("name", "options"), CUTTING, ids=NAMES)
def test_an_evaluation_without_gradients_derives_as_without_a_rule(
    name: str, options: dict[str, Any], derive: Any, batch: tuple[Tensor, ...]
) -> None:
    """The model enables gradients by itself; a loss of its energy is trained all the same, between two evaluations."""
    model = Potential(derive).double()
    expected = model(batch[0]).detach()

    def energy() -> Tensor:
        model.forward = model.energy  # type: ignore[method-assign]
        try:
            return model(batch[0]).square().mean()
        finally:
            del model.forward

    if options.get("rule"):
        options = {**options, "every": 1}
    with dfa.RULES.build(name, model, ["act"], **options) as rule:
        for _ in range(2):
            with torch.no_grad():
                assert torch.equal(model(batch[0]), expected)
            assert one_step(rule, model, energy)


class Relaxed(nn.Module):
    """Takes a step down the energy of its own input, from where no graph leads further down."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return x - by_autograd(lambda state: torch.tanh(self.layer(state)).square(), x)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("name", "options"), CUTTING, ids=NAMES)
def test_a_derivative_that_crosses_no_point(name: str, options: dict[str, Any], batch: tuple[Tensor, ...]) -> None:
    """Below a point, between two, and above the topmost."""
    model = nn.Sequential(
        nn.Linear(5, 8), Relaxed(), nn.Tanh(), Relaxed(), nn.Tanh(), Relaxed(), nn.Linear(8, 3)
    ).double()
    expected = model(batch[0]).detach()
    exact = backpropagated(model, lambda: model(batch[0]).square().mean())
    if options.get("rule"):
        options = {**options, "every": 1}
    with dfa.RULES.build(name, model, ["2", "4"], **options) as rule:
        assert torch.equal(model(batch[0]), expected)
        rule.discard()
        found = one_step(rule, model, lambda: model(batch[0]).square().mean())
    top = {"5.layer.weight", "5.layer.bias", "6.weight", "6.bias"}
    assert_same({key: found[key] for key in top}, {key: exact[key] for key in top}, tolerance=1e-9)


def test_an_interruption_leaves_no_watch_that_refuses(batch: tuple[Tensor, ...]) -> None:
    class Interrupted(Potential):
        def forward(self, x: Tensor) -> Tensor:
            self.energy(x)
            raise KeyboardInterrupt

    model, x = Interrupted().double(), batch[0].requires_grad_()
    rule = dfa.DirectFeedbackAlignment(model, ["act"])
    with pytest.raises(KeyboardInterrupt):
        model(x)
    torch.autograd.grad(x.square().sum(), x)
    rule.close()
    assert torch.overrides._len_torch_function_stack() == 0


FROZEN: list[tuple[str, dict[str, Any]]] = [("shallow", {}), ("window", {"layers": 0}), ("window", {"layers": 1})]


@pytest.mark.parametrize("wrapped", [False, True], ids=["a tensor", "in a dictionary"])
@pytest.mark.parametrize(("name", "options"), FROZEN, ids=[f"{name} {options}" for name, options in FROZEN])
def test_a_penalty_under_rules_that_send_nothing(
    name: str, options: dict[str, Any], wrapped: bool, mlp: nn.Sequential, batch: tuple[Tensor, Tensor]
) -> None:
    """The derivative by the inputs would end at the points; in a pause it is autograd's."""

    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers, self.past = mlp, nn.Linear(5, 3).double()

        def forward(self, x: Tensor) -> Any:
            found = self.layers(x) + self.past(x)
            return {"scores": [found]} if wrapped else found

    model = Wrapped()

    def scores(x: Tensor) -> Tensor:
        found = model(x)
        return found["scores"][0] if wrapped else found

    def penalty() -> Tensor:
        x = batch[0].clone().requires_grad_()
        (slope,) = torch.autograd.grad(scores(x).sum(), x, create_graph=True)
        return slope.square().mean()

    exact = backpropagated(model, penalty)
    rule = dfa.RULES.build(name, model, ["layers.1", "layers.3"], **options)
    usual = one_step(rule, model, lambda: scores(batch[0]).square().mean())
    with pytest.raises(dfa.PointError, match=r"create_graph.*rule\.paused"):
        penalty()
    with rule.paused():
        paused = penalty()
    found = one_step(rule, model, lambda: scores(batch[0]).square().mean() + paused)
    expected = {key: usual.get(key, 0) + exact.get(key, 0) for key in {**usual, **exact}}
    assert_same(found, expected, tolerance=1e-9)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["dfa", "shallow", "window"])
def test_a_part_under_a_transform(name: str, mlp: nn.Sequential, batch: tuple[Tensor, Tensor]) -> None:
    """Outside of any call of the model, only a point can tell."""
    with dfa.RULES.build(name, mlp, ["1", "3"]) as rule:
        with pytest.raises(dfa.PointError, match=r"transforms of torch\.func"):
            torch.func.grad(lambda x: mlp[:3](x).sum())(batch[0])
        with rule.paused():
            found = torch.func.grad(lambda x: mlp[:3](x).sum())(batch[0])
    assert torch.equal(found, torch.func.grad(lambda x: mlp[:3](x).sum())(batch[0]))
