"""Mistakes a user can make, each answered with one clear sentence."""

import re
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import dfa
from dfa.patterns import find_modules, matches
from dfa.registry import OptionError, Registry, UnknownNameError
from tests.dfa.steps import Batch


@pytest.mark.parametrize(
    ("name", "pattern", "expected"),
    [
        ("blocks.0", "blocks.*", True),
        ("blocks.0.act", "blocks.*", False),
        ("blocks.0.act", "blocks.*.act", True),
        ("blocks.0.act", "**.act", True),
        ("act", "**.act", True),
        ("a.b.c", "**", True),
        ("a.b.c", "a.**.c", True),
        ("a.c", "a.**.c", True),
        ("blocks.3", "blocks.[0-2]", False),
        ("blocks.10", "blocks.?", False),
        ("", "", True),
        ("", "*", False),
        ("", "**", False),
        ("a", "", False),
    ],
)
def test_patterns(name: str, pattern: str, expected: bool) -> None:
    assert matches(name, pattern) is expected


def test_modules_in_the_models_order() -> None:
    inner = nn.Tanh()
    model = nn.ModuleDict({"b": nn.Linear(1, 1), "a": nn.Linear(1, 1), "module": nn.ModuleList([inner])})
    assert list(find_modules(model, ["a", "b", "*"])) == ["b", "a", "module"]
    assert find_modules(model, "module.0") == {"module.0": inner}
    assert find_modules(model, "") == {"": model}
    assert find_modules(model, []) == {}


@pytest.mark.parametrize("name", ["bp", "dfa", "shallow"])
@pytest.mark.parametrize("where", ["points", "error_at", "silent"])
def test_pattern_that_matches_nothing(name: str, where: str, mlp: nn.Sequential) -> None:
    model = nn.ModuleDict({"encoder": mlp, "decoder": nn.Linear(3, 3)})
    with pytest.raises(dfa.PointError, match=r"pattern 'encodr\.1' matches no module; candidates: .*encoder\.1"):
        dfa.RULES.build(name, model, **{"points": "decoder", where: ["decoder", "encodr.1"]})
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("where", ["points", "silent"])
def test_second_name_of_a_module(where: str) -> None:
    act = nn.Tanh()
    model = nn.Sequential(nn.Linear(5, 8), act, nn.Linear(8, 8), act, nn.Linear(8, 3))
    with pytest.raises(dfa.PointError, match=r"pattern '3' matches '3', which is the same module as '1': name it '1'"):
        dfa.RULES.build("dfa", model, **{"points": "1", where: ["1", "3"]})
    dfa.RULES.build("dfa", model, "1").close()
    dfa.RULES.build("dfa", model, "[13]").close()


@pytest.mark.parametrize("where", ["points", "silent"])
def test_second_name_of_a_module_beside_other_names(where: str) -> None:
    shared = nn.Linear(5, 5)
    model = nn.ModuleDict(
        {"one": nn.ModuleList([shared, nn.Linear(5, 5)]), "two": nn.ModuleList([shared, nn.Linear(5, 5)])}
    )
    with pytest.raises(
        dfa.PointError, match=r"pattern 'two\.\*' matches 'two\.0', which is the same module as 'one\.0'"
    ):
        dfa.RULES.build("dfa", model, **{"points": "one.1", where: ["one.1", "two.*"]})
    with dfa.RULES.build("dfa", model, ["one.0", "two.*"]) as rule:
        assert rule.hooks.points == ["one.0", "two.1"]


def test_second_name_of_a_weight() -> None:
    model = nn.ModuleDict({"encoder": nn.Linear(5, 5), "decoder": nn.Linear(5, 5), "head": nn.Linear(5, 2)})
    model["decoder"].weight = model["encoder"].weight
    with pytest.raises(dfa.PointError, match=r"'decoder\.weight' is the same weight as 'encoder\.weight': name it"):
        dfa.FeedbackAlignment(model, weights=["decoder.*", "head.*"])
    with dfa.FeedbackAlignment(model, weights=["*coder.*"]) as rule:
        assert list(rule.weights) == ["encoder.weight"]
    model["decoder"] = nn.Linear(5, 5)
    model["decoder"].bias = model["encoder"].bias
    with dfa.FeedbackAlignment(model, weights=["decoder.*"]) as rule:  # a bias is none of the weights
        assert list(rule.weights) == ["decoder.weight"]


@pytest.mark.parametrize("name", list(dfa.RULES))
@pytest.mark.parametrize(
    ("where", "said"),
    [
        ({"points": {"0": "nosuch.module"}}, "'nosuch.module' matches no module"),
        ({"points": {"nosuch.module": "3"}}, "'nosuch.module' matches no module"),
        ({"points": {"0": "2", "[01]": "3"}}, "'0' belongs to two error tensors: '2', '3'"),
        ({"points": {"0": "3"}, "error_at": "3"}, "leave nothing for error_at to say"),
        ({"points": "0", "error_at": "nosuch.module"}, "'nosuch.module' matches no module"),
        ({"points": "0", "silent": "nosuch.module"}, "'nosuch.module' matches no module"),
    ],
)
def test_every_rule_reports_a_wrong_place(name: str, where: dict[str, Any], said: str, mlp: nn.Sequential) -> None:
    """Also those that cut nothing, so that a comparison of rules does not hide a typo."""
    with pytest.raises(dfa.PointError, match=said):
        dfa.RULES.build(name, mlp, **where)
    dfa.RULES.build("bp", mlp).close()


@pytest.mark.parametrize("name", list(dfa.RULES))
def test_every_rule_wants_a_loss_of_one_number(name: str, mlp: nn.Sequential, batch: Batch) -> None:
    rule = dfa.RULES.build(name, mlp, ["1"])
    with pytest.raises(dfa.PointError, match=r"the loss is of shape \(7,\): go backward from one number"):
        rule.backward(cross_entropy(mlp(batch[0]), batch[1], reduction="none"))


def test_model_without_parts() -> None:
    with pytest.raises(dfa.PointError, match="the model has no named modules"):
        dfa.DirectFeedbackAlignment(nn.Linear(2, 2), "act")


class Aside(nn.Module):
    """A model with a part that its forward does not call."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.act, self.unused, self.last = nn.Linear(5, 4), nn.Tanh(), nn.Tanh(), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.act(self.first(x)))


@pytest.mark.parametrize("name", ["dfa", "shallow"])
def test_point_that_never_fires(name: str, batch: Batch) -> None:
    model = Aside().double()
    rule = dfa.RULES.build(name, model, ["act", "unused"])
    loss = cross_entropy(model(batch[0]), batch[1])
    with pytest.raises(dfa.PointError, match=r"never reached by a forward pass: unused(;|$)"):
        rule.backward(loss)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_point_above_the_error_tensor(mlp: nn.Sequential, batch: Batch) -> None:
    rule = dfa.DirectFeedbackAlignment(mlp, ["1", "3"], error_at="2")
    with pytest.raises(dfa.PointError, match=r"above the error tensor '2': 3$"):
        mlp(batch[0])
    rule.close()
    mlp(batch[0])


def test_nothing_to_learn_below_a_point(mlp: nn.Sequential, batch: Batch) -> None:
    model = nn.Sequential(nn.Identity(), mlp)
    rule = dfa.DirectFeedbackAlignment(model, ["0", "1.1"])
    with pytest.raises(dfa.PointError, match="feedback point '0' has nothing below it that could learn"):
        rule.backward(cross_entropy(model(batch[0]), batch[1]))


class Choice(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.argmax(dim=-1)


def test_integer_outputs(mlp: nn.Sequential, batch: Batch) -> None:
    model = nn.Sequential(mlp, Choice())
    rule = dfa.DirectFeedbackAlignment(model, "0.1")
    with pytest.raises(dfa.PointError, match=r"error tensor 'model output': its output is of type torch\.int64"):
        model(batch[0])
    rule.close()
    rule = dfa.DirectFeedbackAlignment(model, "1")
    with pytest.raises(dfa.PointError, match=r"feedback point '1': its output is of type torch\.int64"):
        model(batch[0])


def test_output_that_is_no_tensor(batch: Batch) -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(5, 3)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"logits": self.layer(x)}

    model = Named().double()
    dfa.DirectFeedbackAlignment(model, "layer")
    with pytest.raises(dfa.PointError, match="returns dict with the fields logits, not a tensor"):
        model(batch[0])


@pytest.mark.parametrize("name", ["bp", "dfa", "shallow"])
def test_output_without_gradient(name: str, batch: Batch) -> None:
    class Detached(Aside):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).detach()

    model = Detached().double()
    rule = dfa.RULES.build(name, model, "act")
    with pytest.raises(dfa.PointError, match=r"no gradient|not differentiable"):
        rule.backward(cross_entropy(model(batch[0]), batch[1]))


def test_backward_without_forward(mlp: nn.Sequential) -> None:
    rule = dfa.DirectFeedbackAlignment(mlp, "1", error_at="4")
    with pytest.raises(dfa.PointError, match=r"no forward pass .* \(error_at: 4\)"):
        rule.backward(torch.zeros((), requires_grad=True))


def test_second_backward_of_one_pass(mlp: nn.Sequential, batch: Batch) -> None:
    rule = dfa.DirectFeedbackAlignment(mlp, "1")
    loss = cross_entropy(mlp(batch[0]), batch[1])
    rule.backward(loss)
    with pytest.raises(dfa.PointError, match="no forward pass"):
        rule.backward(loss)


def test_loss_that_does_not_depend_on_the_error_tensor(mlp: nn.Sequential, batch: Batch) -> None:
    rule = dfa.DirectFeedbackAlignment(mlp, "1")
    output = mlp(batch[0])
    with pytest.raises(dfa.PointError, match="does not depend on the error tensor"):
        rule.backward(mlp.get_parameter("4.weight").square().sum())
    assert output.requires_grad  # a pass whose output is gone would have been forgotten
    with pytest.raises(dfa.PointError, match="the loss has no gradient"):
        rule.backward(torch.zeros(()))


def test_unknown_and_duplicate_names() -> None:
    with pytest.raises(UnknownNameError) as caught:
        dfa.RULES.build("dffa", nn.Linear(1, 1))
    assert re.fullmatch(r"unknown rule 'dffa'; known: bp, (\w+, )*dfa, (\w+, )*shallow(, \w+)*", str(caught.value))
    registry: Registry = Registry("thing")
    registry.register("one")(dict)
    registry.register("one")(dict)  # the same again, as when a module is imported twice
    with pytest.raises(ValueError, match="thing 'one' is registered twice"):
        registry.register("one")(list)
    assert "one" in registry
    assert registry["one"] is dict


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sede": 1}, "has no option 'sede'; known: .*seed"),
        ({"seed": "one"}, "option 'seed' must be of type int, got 'one'"),
        ({"seed": True}, "option 'seed' must be of type int, got True"),
        ({"normalise": 1}, "option 'normalise' must be of type bool, got 1"),
        ({"scale": "big"}, "option 'scale' must be of type float, got 'big'"),
        ({"distribution": 3}, "option 'distribution' must be of type str, got 3"),
        ({"batch_dims": "two"}, r"option 'batch_dims' must be of type int \| None, got 'two'"),
        ({"sharing": "some"}, r"option 'sharing' must be of type Literal\['shared', 'per_point'\], got 'some'"),
    ],
)
def test_options_are_checked(options: dict[str, object], message: str, mlp: nn.Sequential) -> None:
    with pytest.raises(OptionError, match=message):
        dfa.RULES.build("dfa", mlp, "1", **options)


def test_valid_options_build_a_rule(mlp: nn.Sequential) -> None:
    dfa.RULES.build("dfa", mlp, points=("1",), scale=2, batch_dims=None, sharing="per_point").close()
    dfa.RULES.build("dfa", mlp, points="1", batch_dims=2)


def test_missing_option() -> None:
    registry: Registry = Registry("task")

    @registry.register("graph")
    def build(nodes: int, kind: Literal["a", "b"] = "a") -> int:
        return nodes

    assert registry.build("graph", nodes=3) == 3
    with pytest.raises(OptionError, match="task 'graph': missing a required argument: 'nodes'"):
        registry.build("graph", kind="b")


def test_postponed_annotations_are_types_too() -> None:
    """As in a module that begins with `from __future__ import annotations`."""
    registry: Registry[Any] = Registry("thing")

    @registry.register("one")
    def make(layers: "int | None" = None, kind: "Literal['a', 'b']" = "a") -> None:
        pass

    registry.check_options("one", {"layers": None, "kind": "b"})
    for options in ({"layers": "high"}, {"kind": "c"}):
        with pytest.raises(OptionError, match=r"thing 'one': option '.*' must be of type"):
            registry.check_options("one", options)
