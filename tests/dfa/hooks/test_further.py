"""A loss of more than the error tensor, whose error goes to no feedback point, which is reported."""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

import dfa
from dfa.hooks.outputs import tensors_in
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
        lambda action, value: (action, [value]),
        lambda action, value: (action, {"value": value}),
    ],
)
@pytest.mark.parametrize("name", ["dfa", "fdfa"])
def test_an_error_at_a_further_head_is_told_once(name: str, together: Any) -> None:
    model = TwoHeads(together)
    with dfa.RULES.build(name, model, ["trunk.1"]) as rule:
        for expected in (1, 0):
            output = model(inputs())
            assert type(output) is type(together(inputs(), inputs()))
            value = tensors_in(output[1])[0]
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


def test_an_error_at_another_field_is_told() -> None:
    model = TwoHeads(lambda action, value: {"action": action, "value": value})
    with dfa.DirectFeedbackAlignment(model, ["trunk.1"], "action") as rule:
        output = model(inputs())
        (said,) = told(rule, loss_of(output["action"], output["value"]))
        assert "beside the error tensor" in said
        assert told(rule, model(inputs())["action"].square().mean()) == []


@pytest.mark.parametrize("together", [lambda *both: both, lambda *both: list(both), lambda *both: {"heads": both}])
def test_an_error_at_a_head_beside_the_error_tensor_is_told_once(together: Any) -> None:
    model = TwoHeads(together)
    with dfa.DirectFeedbackAlignment(model, ["trunk.1"], "actor") as rule:
        for expected in (1, 0):
            said = told(rule, loss_of(*tensors_in(model(inputs()))))
            assert len(said) == expected and all("beside the error tensor" in line for line in said)


def test_what_comes_from_an_error_tensor_is_no_further_head() -> None:
    model = TwoHeads(lambda action, value: (action.softmax(-1), {"logits": action, "value": value}))
    with dfa.DirectFeedbackAlignment(model, {"trunk.1": "actor", "trunk.3": "critic"}) as rule:
        output, more = model(inputs())
        assert told(rule, loss_of(output, more["value"]) + more["logits"].square().mean()) == []


def test_what_comes_from_an_error_tensor_is_told_apart_in_a_pass_that_is_run_again() -> None:
    model = TwoHeads(lambda action, value: (action.softmax(-1), [action.exp()]))
    with dfa.DirectFeedbackAlignment(model, ["trunk.1"], "actor", memory="recompute") as rule:
        output, (more,) = model(inputs())
        assert told(rule, loss_of(output, more)) == []


def test_a_transform_in_the_model_is_no_output_of_a_point() -> None:
    class Mapped(TwoHeads):
        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.actor(torch.func.vmap(self.trunk)(x))
            return out

    model = Mapped()
    with dfa.Shallow(model, ["trunk.1"]) as rule:
        assert told(rule, model(inputs()).square().mean()) == []
    assert model.actor.weight.grad is not None and model.get_parameter("trunk.0.weight").grad is None


def test_an_error_at_a_list_beside_a_field_is_told() -> None:
    model = TwoHeads(lambda action, value: {"action": action, "values": [value], "log": ["nothing"]})
    with dfa.DirectFeedbackAlignment(model, ["trunk.1"], "action") as rule:
        output = model(inputs())
        (said,) = told(rule, loss_of(output["action"], output["values"][0]))
        assert "beside the error tensor" in said


@pytest.mark.parametrize("error_at", ["", "actor"])
def test_a_list_without_tensors_that_learn_is_left_as_it_is(error_at: str) -> None:
    kept = [torch.zeros(4), "text"]
    model = TwoHeads(lambda action, value: (action, kept))
    with dfa.DirectFeedbackAlignment(model, ["trunk.1"], error_at):
        assert model(inputs())[1] is kept


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiled_part_may_hold_the_error_tensor() -> None:
    """What comes from it cannot be told from a further head."""

    class Nested(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.critic = TwoHeads(lambda action, value: action), nn.Linear(3, 1)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            action = self.inner(x)
            return action.softmax(-1), self.critic(action)

    model = Nested()
    torch.compiler.reset()
    with dfa.DirectFeedbackAlignment(model, {"inner.trunk.1": "inner.actor"}) as rule:
        model.inner.compile(backend="aot_eager")
        assert told(rule, loss_of(*model(inputs()))) == []


class ShowsHidden(nn.Module):
    """Returns what its blocks give beside its output."""

    def __init__(self, together: Callable[[Tensor, list[Tensor]], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(5, 5), nn.Tanh()) for _ in range(3))
        self.head = nn.Linear(5, 3)
        self.together = together

    def forward(self, x: Tensor) -> Any:
        hidden = []
        for block in self.blocks:
            x = block(x)
            hidden.append(x)
        return self.together(self.head(x), hidden)


@pytest.mark.parametrize("memory", ["keep", "recompute"])
@pytest.mark.parametrize(
    ("together", "error_at"),
    [
        (lambda output, hidden: (output, hidden[1]), ""),
        (lambda output, hidden: (output, hidden[1].unsqueeze(0)), ""),
        (lambda output, hidden: (output, hidden), ""),
        (lambda output, hidden: (output, {"hidden": tuple(hidden)}), "head"),
        (lambda output, hidden: {"output": output, "hidden": hidden}, "output"),
    ],
    ids=["alone", "a view", "a list", "a dictionary", "fields"],
)
def test_a_term_on_the_output_of_a_point_is_told_once(together: Any, error_at: str, memory: Any) -> None:
    model = ShowsHidden(together)
    found = []
    with dfa.DirectFeedbackAlignment(model, ["blocks.*"], error_at, batch_dims=1, memory=memory) as rule:
        for weight, expected in ((0.0, 0), (1.0, 1), (1.0, 0)):
            output = model(inputs())
            first, shown = (output["output"], output["hidden"]) if error_at == "output" else output
            shown = shown["hidden"] if isinstance(shown, dict) else shown
            shown = shown if isinstance(shown, Tensor) else shown[1]
            model.zero_grad()
            said = told(rule, first.square().mean() + (weight * (shown - 1).square().mean() if weight else 0.0))
            assert len(said) == expected and all("output of feedback point 'blocks.1'" in line for line in said)
            found.append(gradients(model))
    assert_same(found[1], found[0], 0.0)


class Recurrent(nn.Module):
    def __init__(self, state: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.recurrent, self.head, self.state = nn.LSTM(5, 6, batch_first=True), nn.Linear(6, 3), state

    def forward(self, x: Tensor) -> Tensor:
        every, (last, _) = self.recurrent(x)
        output: Tensor = self.head(last[-1] if self.state else every[:, -1])
        return output


class Routed(nn.Module):
    """A block that returns a loss of its own beside its output."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.experts = nn.Linear(5, 2), nn.Linear(5, 10)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        shares = self.gate(x).softmax(-1)
        routed = (self.experts(x).unflatten(-1, (2, 5)) * shares.unsqueeze(-1)).sum(-2)
        return torch.tanh(routed), shares.mean(0).square().sum(), shares.detach().mean(0)


class Experts(nn.Module):
    def __init__(self, counts: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks, self.head, self.counts = nn.ModuleList([Routed(), Routed()]), nn.Linear(5, 3), counts

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        total = x.new_zeros(())
        for block in self.blocks:
            x, balance, shares = block(x)
            total = total + (shares.square().sum() if self.counts else balance)
        return {"output": self.head(x), "total": total}


@pytest.mark.parametrize("counts", [True, False], ids=["constants", "a loss"])
@pytest.mark.parametrize("memory", ["keep", "recompute"])
def test_a_loss_that_a_block_returns_is_told(memory: Any, counts: bool) -> None:
    """It teaches the block nothing, whether or not its graph was kept; what is constant may be used."""
    model = Experts(counts)
    found: list[dict[str, Tensor]] = []
    with dfa.DirectFeedbackAlignment(model, ["blocks.*"], "output", memory=memory) as rule:
        for weight in (1.0, 1.0, 0.0):
            model.zero_grad()
            output = model(inputs())
            said = told(rule, output["output"].square().mean() + weight * output["total"])
            first = weight > 0 and not found and not counts
            assert any("beside its first tensor" in line for line in said) == first
            found.append(gradients(model))
    assert_same(found[0], found[2], 0.0)


@pytest.mark.parametrize("name", ["dfa", "dkp"])
@pytest.mark.parametrize("state", [True, False])
def test_the_use_of_an_lstms_state_is_told(state: bool, name: str) -> None:
    model = Recurrent(state)
    x = torch.randn(4, 2, 5, generator=torch.Generator().manual_seed(1))
    with dfa.RULES.build(name, model, ["recurrent"], batch_dims=1) as rule:
        said = [line for _ in range(2) for line in told(rule, model(x).square().mean())]
    assert len(said) == int(state) and all("last state of an LSTM" in line for line in said)
