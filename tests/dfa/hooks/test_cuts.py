"""Modules whose output is cut, and that a forward pass leaves out or that are no longer part of the model."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

import dfa
from tests.dfa.reference import assert_same
from tests.dfa.steps import Batch, step


@pytest.mark.parametrize("name", ["dfa", "shallow", "dkp"])
@pytest.mark.parametrize("silent", [False, True], ids=["point", "silent"])
def test_module_that_was_replaced(name: str, silent: bool, mlp: nn.Sequential, batch: Batch) -> None:
    rule = dfa.RULES.build(name, mlp, "1" if silent else ["1", "3"], silent="3" if silent else ())
    step(rule, mlp, batch)
    mlp[3] = nn.Tanh()
    with pytest.raises(dfa.PointError, match=r"no longer part of the model.*: 3;"):
        step(rule, mlp, batch)


def test_module_that_a_pass_leaves_out_or_that_is_wrapped(mlp: nn.Sequential, batch: Batch) -> None:
    """Layer drop, and a wrapper around a point, take nothing away."""
    rule = dfa.DirectFeedbackAlignment(mlp, ["1", "3"])
    expected = step(rule, mlp, batch)
    mlp[3] = nn.Sequential(mlp[3])
    assert_same(step(rule, mlp, batch), expected, tolerance=1e-12)
    layers = [mlp[0], mlp[1], mlp[2], nn.Sequential(), mlp[4]]
    mlp.__dict__["forward"] = lambda x: layers[4](layers[2](layers[1](layers[0](x))))
    assert step(rule, mlp, batch).keys() == expected.keys()


class Adapted(nn.Module):
    """A layer, and one of low rank beside it that learns."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.beside = layer, nn.Linear(6, 6).double()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x) + self.beside(x)
        return out


@pytest.mark.parametrize("name", ["dfa", "shallow", "window", "dkp"])
@pytest.mark.parametrize("silent", [False, True], ids=["point", "silent"])
def test_a_module_put_around_one_whose_output_is_cut(name: str, silent: bool, mlp: nn.Sequential, batch: Batch) -> None:
    """What it adds would learn from the exact error."""
    rule = dfa.RULES.build(name, mlp, "1" if silent else ["1", "3"], silent="3" if silent else ())
    step(rule, mlp, batch)
    mlp[3] = Adapted(mlp[3])
    with pytest.raises(dfa.PointError, match=r"added after the rule was made, so that nothing is cut there: 3;"):
        step(rule, mlp, batch)


def test_an_adapter_in_a_sequence_with_a_point(mlp: nn.Sequential, batch: Batch) -> None:
    rule = dfa.Shallow(mlp, ["1", "3"])
    step(rule, mlp, batch)
    mlp[3] = nn.Sequential(mlp[3], nn.Linear(6, 6).double())
    with pytest.raises(dfa.PointError, match=r"so that nothing is cut there: 3;"):
        step(rule, mlp, batch)


def test_layers_put_in_between_move_the_names_of_points(mlp: nn.Sequential, batch: Batch) -> None:
    """The points stay the modules that they are."""
    rule = dfa.DirectFeedbackAlignment(mlp, ["1", "3"])
    expected = step(rule, mlp, batch)
    mlp.insert(0, nn.Identity())
    assert_same(dict(zip(expected, step(rule, mlp, batch).values(), strict=True)), expected, tolerance=1e-12)


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda layer: nn.Sequential(nn.Sequential(layer)),
        nn.Sequential,
        checkpoint_wrapper,
        partial(torch.compile, backend="eager"),
    ],
)
def test_a_module_put_around_a_point_that_changes_nothing(wrapped: Any, mlp: nn.Sequential, batch: Batch) -> None:
    rule = dfa.DirectFeedbackAlignment(mlp, ["1", "3"])
    expected = step(rule, mlp, batch)
    mlp[3] = wrapped(mlp[3])
    found = step(rule, mlp, batch)
    assert_same(dict(zip(expected, found.values(), strict=True)), expected, tolerance=1e-12)


DIRECT: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in ("dfa", "identity", "highway", "drtp", "dkp", "low_rank", "fdfa", "grape")),
    ("dfa", {"memory": "recompute"}),
]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", ["register_full_backward_hook", "register_full_backward_pre_hook"])
@pytest.mark.parametrize(("name", "options"), DIRECT, ids=[f"{name} {options}" for name, options in DIRECT])
def test_a_backward_hook_of_a_point_is_refused(
    name: str, options: dict[str, Any], kind: str, mlp: nn.Sequential, batch: Batch
) -> None:
    """It would never run. One of a module inside the point, or below, does, with the signal."""
    inner = nn.Linear(8, 8).double()
    model = nn.Sequential(mlp[0], nn.Sequential(inner, nn.Tanh()), mlp[2], mlp[3], mlp[4])
    arrived: list[Tensor] = []

    def hook(module: nn.Module, *gradients: tuple[Tensor, ...]) -> None:
        arrived.extend(gradients[-1])

    with dfa.RULES.build(name, model, ["1", "3"], **options) as rule:
        handle = getattr(model[1], kind)(hook)
        with pytest.raises(dfa.PointError, match=r"point '1' has a backward hook.*inside or below"):
            model(batch[0])
        handle.remove()
        rule.discard()
        getattr(inner, kind)(hook)
        gradients = step(rule, model, batch)
    torch.testing.assert_close(arrived[-1].sum(0), gradients["1.0.bias"])


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", ["bp", "fa", "shallow", "window"])
def test_rules_without_signals_to_points_leave_backward_hooks_alone(
    name: str, mlp: nn.Sequential, batch: Batch
) -> None:
    """The topmost of two points learns under `window`; nothing goes backward through the points of `shallow`."""
    calls: list[nn.Module] = []
    mlp[3].register_full_backward_hook(lambda module, received, sent: calls.append(module))
    with dfa.RULES.build(name, mlp, ["1", "3"]) as rule:
        step(rule, mlp, batch)
    assert len(calls) == (name != "shallow")
