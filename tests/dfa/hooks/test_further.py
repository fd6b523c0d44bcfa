"""A loss of several heads: the error of all but the first goes to no feedback point, which is told."""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import dfa
from tests.dfa.reference import assert_same, gradients

TOLD = "further tensors that the model returns beside the first"


class Both(NamedTuple):
    action: Tensor
    value: Tensor


class TwoHeads(nn.Module):
    def __init__(self, together: Callable[[Tensor, Tensor], Any] = lambda action, value: (action, value)) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh())
        self.actor, self.critic = nn.Linear(6, 3), nn.Linear(6, 1)
        self.together = together

    def forward(self, x: Tensor) -> Any:
        hidden = self.trunk(x)
        return self.together(self.actor(hidden), self.critic(hidden))


def inputs() -> Tensor:
    return torch.randn(4, 5, generator=torch.Generator().manual_seed(1))


def loss_of(action: Tensor, value: Tensor) -> Tensor:
    return action.square().mean() + value.square().mean()


def told(rule: dfa.Rule, loss: Tensor) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rule.backward(loss)
    return [str(one.message) for one in caught]


@pytest.mark.parametrize(
    "together",
    [
        lambda action, value: (action, value),
        lambda action, value: [action, value],
        Both,
        lambda action, value: (action, (value,)),
    ],
)
@pytest.mark.parametrize("name", ["dfa", "fdfa"])
def test_an_error_at_a_further_head_is_told_once(name: str, together: Any) -> None:
    model = TwoHeads(together)
    with dfa.RULES.build(name, model, ["trunk.1"]) as rule:
        for expected in (1, 0):
            output = model(inputs())
            assert type(output) is type(together(inputs(), inputs()))
            value = output[1] if isinstance(output[1], Tensor) else output[1][0]
            said = told(rule, loss_of(output[0], value))
            assert len(said) == expected and all(TOLD in line for line in said)


def test_the_gradients_are_those_of_the_first_head_below_the_points_and_of_both_above() -> None:
    model = TwoHeads()
    with dfa.DirectFeedbackAlignment(model, ["trunk.1"]) as rule:
        rule.backward(model(inputs())[0].square().mean())
        of_the_first = gradients(model)
        model.zero_grad()
        assert told(rule, loss_of(*model(inputs())))
        found = gradients(model)
    model.zero_grad()
    loss_of(*model(inputs())).backward()
    exact = gradients(model)
    below = ("trunk.0.weight", "trunk.0.bias")
    assert_same({name: found[name] for name in below}, {name: of_the_first[name] for name in below}, 0.0)
    assert_same(
        {name: found[name] for name in exact if name not in below}, {n: exact[n] for n in exact if n not in below}
    )


@pytest.mark.parametrize(
    ("error_at", "loss"),
    [
        ("", lambda action, value: action.square().mean()),
        ("", lambda action, value: action.square().mean() + value.detach().square().mean()),
        ("trunk.2", loss_of),
    ],
    ids=["not used", "detached", "at the trunk"],
)
def test_nothing_is_told_where_all_errors_are_sent(error_at: str, loss: Any) -> None:
    model = TwoHeads()
    with dfa.DirectFeedbackAlignment(model, ["trunk.1"], error_at) as rule:
        assert told(rule, loss(*model(inputs()))) == []


@pytest.mark.parametrize("name", ["bp", "shallow", "fa", "highway"])
def test_rules_that_send_no_error_of_the_output_say_nothing(name: str) -> None:
    model = TwoHeads()
    with dfa.RULES.build(name, model, ["trunk.1"], "trunk.2" if name == "highway" else "") as rule:
        assert told(rule, loss_of(*model(inputs()))) == []


def test_a_parameter_among_the_outputs_is_left_as_it_is() -> None:
    model = TwoHeads(lambda action, value: (action, model.critic.weight))
    with dfa.DirectFeedbackAlignment(model, ["trunk.1"]) as rule:
        action, weight = model(inputs())
        assert weight is model.critic.weight
        assert told(rule, action.square().mean() + 1e-3 * weight.square().sum()) == []
