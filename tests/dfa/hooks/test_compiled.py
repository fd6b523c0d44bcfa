"""Feedback points inside a model compiled as one graph."""

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.nn.functional import cross_entropy

import dfa
from tests.dfa.reference import assert_same, gradients
from tests.dfa.steps import Batch, step


@pytest.fixture(autouse=True)
def _fresh_compiler() -> None:
    torch.compiler.reset()


@pytest.mark.parametrize("name", ["bp", "dfa", "shallow"])
def test_compiled_gradients_are_eager_ones(name: str, mlp: nn.Sequential, batch: Batch) -> None:
    eager = dfa.RULES.build(name, mlp, ["1", "3"])
    expected = step(eager, mlp, batch)
    eager.close()
    compiled = as_graph(mlp)
    rule = dfa.RULES.build(name, compiled, ["1", "3"])
    counters.clear()
    for _ in range(3):
        assert_same(step(rule, compiled, batch), rename(expected), tolerance=1e-12)
    assert counters["stats"]["unique_graphs"] == 1, "the hooks' book-keeping must not call for another compilation"
    with torch.no_grad():
        assert not compiled(batch[0]).requires_grad
    assert_same(step(rule, compiled, batch), rename(expected), tolerance=1e-12)


def test_closed_rule_leaves_the_compiled_model_alone(mlp: nn.Sequential, batch: Batch) -> None:
    cross_entropy(mlp(batch[0]), batch[1]).backward()
    expected = gradients(mlp)
    compiled = as_graph(mlp)
    rule = dfa.DirectFeedbackAlignment(compiled, ["1", "3"])
    step(rule, compiled, batch)
    rule.close()
    mlp.zero_grad()
    cross_entropy(compiled(batch[0]), batch[1]).backward()
    assert_same(gradients(mlp), expected, tolerance=1e-12)


def test_alignment_and_pause_in_a_compiled_model(mlp: nn.Sequential, batch: Batch) -> None:
    def loss() -> Tensor:
        return cross_entropy(model(batch[0]), batch[1])

    model: nn.Module = mlp
    eager = dfa.DirectFeedbackAlignment(model, ["1", "3"])
    expected = dfa.measure_alignment(eager, loss)
    eager.close()
    loss().backward()
    true = gradients(mlp)
    model = as_graph(mlp)
    rule = dfa.DirectFeedbackAlignment(model, ["1", "3"])
    step(rule, model, batch)
    found = dfa.measure_alignment(rule, loss)
    for name in expected:
        torch.testing.assert_close(found[name].cosines, expected[name].cosines)
    mlp.zero_grad()
    with rule.paused():
        loss().backward()
    assert_same(gradients(mlp), true, tolerance=1e-12)


@pytest.mark.parametrize("points", ["1", ["1", "3"]])
def test_error_inside_a_compiled_model(points: list[str], mlp: nn.Sequential, batch: Batch) -> None:
    """Signals are computed inside the graph. A matrix cannot be drawn there: the first step draws it outside."""
    rule = dfa.DirectFeedbackAlignment(mlp, points, error_at="3")
    expected = step(rule, mlp, batch)
    compiled = as_graph(mlp)
    counters.clear()
    for _ in range(3):
        assert_same(step(rule, compiled, batch), rename(expected), tolerance=1e-12)
        assert not rule.hooks.records
    assert counters["stats"]["unique_graphs"] == 1
    next(iter(rule.feedback.drawn.values())).mul_(-2)  # read at every step, not built into the graph
    sent = ("0.", "2.") if "3" in points else ("0.",)
    changed = {name: value * (-2 if name.startswith(sent) else 1) for name, value in expected.items()}
    assert_same(step(rule, compiled, batch), rename(changed), tolerance=1e-12)


def test_first_step_inside_a_compiled_model_draws_and_breaks_the_graph(mlp: nn.Sequential, batch: Batch) -> None:
    rule = dfa.DirectFeedbackAlignment(mlp, "1", error_at="3")
    expected = step(rule, mlp, batch)
    rule.close()
    compiled = as_graph(mlp, whole=False)
    rule = dfa.DirectFeedbackAlignment(compiled, "1", error_at="3")
    for _ in range(2):
        assert_same(step(rule, compiled, batch), rename(expected), tolerance=1e-12)


def as_graph(model: nn.Module, whole: bool = True) -> nn.Module:
    """The compiled model; it must be a single graph if `whole`."""
    compiled = torch.compile(model, fullgraph=whole, backend="aot_eager")
    assert isinstance(compiled, nn.Module)
    return compiled


def rename(found: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"_orig_mod.{name}": gradient for name, gradient in found.items()}


def test_a_loss_of_something_else_is_refused(mlp: nn.Sequential, batch: Batch) -> None:
    rule = dfa.DirectFeedbackAlignment(mlp, ["1", "3"])
    compiled = as_graph(mlp, whole=False)
    expected = step(rule, compiled, batch)
    compiled(batch[0])
    with pytest.raises(dfa.PointError, match="does not depend on the error tensor"):
        rule.backward(torch.ones(1, requires_grad=True).sum())
    assert_same(step(rule, compiled, batch), expected)
