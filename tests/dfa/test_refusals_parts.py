"""Plain backward passes after parts of a model were called past it, which would train by another rule."""

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

import dfa
from tests.dfa.reference import backpropagated, gradients

TARGETS = torch.arange(4) % 3


class TwoParts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), parametrizations.orthogonal(nn.Linear(6, 6)), nn.Tanh())
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.body(x))
        return scores


def inputs() -> Tensor:
    return torch.randn(4, 5, generator=torch.Generator().manual_seed(1))


WAYS: dict[str, Callable[[TwoParts], Tensor]] = {
    "parts": lambda model: model.head(model.body(inputs())),
    "forward": lambda model: model.forward(inputs()),
    "another model": lambda model: nn.Sequential(model.body, nn.Linear(6, 3))(inputs()),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["fa", "sign_symmetry", "kolen_pollack"])
def test_a_sequential_rule_refuses_what_would_be_backpropagation(name: str, way: str) -> None:
    model = TwoParts()
    rule = dfa.RULES.build(name, model, weights=["body.0.*", "head.*"])
    with pytest.raises(dfa.PointError, match=r"call rule\.backward"):
        cross_entropy(WAYS[way](model), TARGETS).backward()
    assert "body.0.weight" not in gradients(model)
    with rule.paused():
        exact = backpropagated(model, lambda: cross_entropy(WAYS["parts"](model), TARGETS))
    model.zero_grad()
    rule.backward(cross_entropy(WAYS["parts"](model), TARGETS))
    found = gradients(model)
    assert torch.equal(found["head.weight"], exact["head.weight"])
    assert not torch.allclose(found["body.0.weight"], exact["body.0.weight"])


def test_a_loss_on_a_weight_alone_is_left_alone() -> None:
    model = TwoParts()
    dfa.RULES.build("fa", model, weights=["body.0.*", "head.*"])
    weight = model.get_parameter("body.0.weight")
    weight.square().sum().backward()
    assert torch.equal(gradients(model)["body.0.weight"], 2 * weight.detach())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["dfa", "identity", "highway", "dkp"])
def test_a_direct_rule_warns_once(name: str, way: str) -> None:
    model = TwoParts()
    rule = dfa.RULES.build(name, model, ["body.1", "body.3"])
    with pytest.warns(UserWarning, match="has a rule") as told:
        for _ in range(3):
            cross_entropy(WAYS[way](model), TARGETS).backward()
    assert sum("rule.backward" in str(one.message) for one in told) == 1
    rule.close()
    other = TwoParts()
    with dfa.RULES.build(name, other, ["body.1", "body.3"], error_at="head") as rule:
        rule.backward(cross_entropy(WAYS["parts"](other), TARGETS))  # expected: nothing is said


@pytest.mark.parametrize("options", [{}, {"batch_dims": 1}])
@pytest.mark.parametrize("name", ["dfa", "low_rank", "highway", "dkp"])
def test_steps_by_parts_say_nothing(name: str, options: dict[str, int]) -> None:
    """Nor do the trial of rows in the second of them, alignment, and several passes before one backward."""
    model = TwoParts()
    model.body = nn.Sequential(nn.Linear(5, 3), nn.Tanh(), nn.Linear(3, 3), nn.Tanh())
    model.head = nn.Linear(3, 3)
    more = {"rank": 1} if name == "low_rank" else {}
    rule = dfa.RULES.build(name, model, ["body.1", "body.3"], "head", **options, **more)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            rule.backward(cross_entropy(WAYS["parts"](model), TARGETS))
        dfa.measure_alignment(rule, lambda: cross_entropy(WAYS["parts"](model), TARGETS))
        both = [cross_entropy(WAYS["parts"](model), TARGETS) for _ in range(2)]
        rule.backward(both[0] + both[1])
    with pytest.warns(UserWarning, match="has a rule"):
        cross_entropy(WAYS["parts"](model), TARGETS).backward()


def test_a_derivative_of_parts_may_be_part_of_the_loss() -> None:
    """As forces are, which sequential rules leave as they are."""
    model = TwoParts()
    rule = dfa.RULES.build("sign_symmetry", model, weights=["body.0.*", "head.*"])
    x = inputs().requires_grad_()
    energy = model.head(model.body(x)).sum()
    (forces,) = torch.autograd.grad(energy, x, create_graph=True)
    assert forces.shape == x.shape
    rule.close()


@pytest.mark.filterwarnings("ignore:.*use_reentrant.*:UserWarning")
def test_a_checkpoint_of_a_pause_may_run_again_after_it() -> None:
    """It runs its part by itself, in the backward pass of what was exact."""
    model = TwoParts()
    rule = dfa.RULES.build("fa", model, weights=["body.0.*", "head.*"])
    with rule.paused():
        exact = backpropagated(model, lambda: cross_entropy(model(inputs()), TARGETS))
        model.zero_grad()
        hidden = checkpoint(model.body, inputs().requires_grad_(), use_reentrant=True)
        loss = cross_entropy(model.head(hidden), TARGETS)
    loss.backward()
    torch.testing.assert_close(gradients(model)["body.0.weight"], exact["body.0.weight"])
