"""Plain backward passes after parts of a model were called past it, which would train by another rule."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import parametrizations

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
