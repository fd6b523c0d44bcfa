"""Feedback learned from perturbations: the updates against NumPy, where they lead, and the shaking itself."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import dfa
from tests.dfa.learning import activations, matrices
from tests.dfa.reference import Array, as_array, backpropagated, gradients
from tests.dfa.steps import Batch, step


def shakes_and_response(mlp: nn.Sequential, x: Array, seed: int) -> tuple[Array, Array, Array]:
    """The perturbations that the rule draws after this seed, and s = Σ J p by the chain rule."""
    torch.manual_seed(seed)
    first, second = (as_array(torch.randn(7, width, dtype=torch.double)) for width in (8, 6))
    _, _, h2, _ = activations(mlp, x)
    w2, w3 = (as_array(mlp.get_parameter(name)) for name in ("2.weight", "4.weight"))
    response = ((first @ w2.T) * (1 - h2**2) + second) @ w3.T
    return first, second, response


def before_and_estimates(
    rule: dfa.DirectFeedbackAlignment, mlp: nn.Sequential, batch: Batch
) -> dict[str, tuple[Array, Array]]:
    """For every point the matrix before a forward pass that is made here, and the mean of s pᵀ in that pass."""
    step(rule, mlp, batch)
    before = matrices(rule)
    first, second, response = shakes_and_response(mlp, as_array(batch[0]), seed=11)
    torch.manual_seed(11)
    mlp(batch[0])
    return {"1": (before["1"], response.T @ first / 7), "3": (before["3"], response.T @ second / 7)}


def test_fdfa_update_in_numpy(mlp: nn.Sequential, batch: Batch) -> None:
    rule = dfa.ForwardDirectFeedback(mlp, ["1", "3"], beta=0.3)
    for name, (before, estimate) in before_and_estimates(rule, mlp, batch).items():
        np.testing.assert_allclose(matrices(rule)[name], 0.7 * before + 0.3 * estimate, atol=1e-6)


def test_grape_update_in_numpy(mlp: nn.Sequential, batch: Batch) -> None:
    rule = dfa.GradientAlignedFeedback(mlp, ["1", "3"], lr=0.3)
    for name, (before, wanted) in before_and_estimates(rule, mlp, batch).items():
        for column in range(wanted.shape[1]):
            length = np.linalg.norm(before[:, column])
            b, g = before[:, column] / length, wanted[:, column] / np.linalg.norm(wanted[:, column])
            b = b + 0.3 * (g - (b @ g) * b)
            np.testing.assert_allclose(matrices(rule)[name][:, column], length * b / np.linalg.norm(b), atol=1e-5)


@pytest.mark.parametrize("around_identity", [False, True])
def test_fdfa_finds_the_jacobian_of_a_linear_network(around_identity: bool) -> None:
    model = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    rule = dfa.ForwardDirectFeedback(model, ["0", "1"], beta=0.03, around_identity=around_identity)
    x = torch.randn(2000, 5)
    for _ in range(300):
        model(x)
        rule.discard()
    above = model.get_parameter("2.weight")
    jacobians = {"0": above @ model.get_parameter("1.weight"), "1": above}
    for name, jacobian in jacobians.items():
        expected = as_array(jacobian) - (np.eye(4) if around_identity else 0)
        np.testing.assert_allclose(matrices(rule)[name], expected, atol=0.02)


@pytest.mark.parametrize("around_identity", [False, True])
def test_fdfa_takes_the_mean_over_the_firings_of_a_point(around_identity: bool) -> None:
    """A point that fires three times in a chain x → V W W W x: its Jacobians are V W W, V W and V."""
    torch.manual_seed(3)
    layer = nn.Linear(4, 4)
    model = nn.Sequential(layer, layer, layer, nn.Linear(4, 4))
    rule = dfa.ForwardDirectFeedback(model, ["0"], beta=0.03, around_identity=around_identity)
    x = torch.randn(2000, 4)
    for _ in range(300):
        model(x)
        rule.discard()
    weight, above, one = as_array(layer.weight), as_array(model.get_parameter("3.weight")), np.eye(4)
    expected = above @ (weight @ weight + weight + one) / 3 - (one if around_identity else 0)
    np.testing.assert_allclose(matrices(rule)["0"], expected, atol=0.02)


def test_grape_turns_towards_the_jacobian() -> None:
    model = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 6))
    rule = dfa.GradientAlignedFeedback(model, ["0"], lr=0.05)
    x = torch.randn(500, 5)
    model(x)
    lengths = np.linalg.norm(matrices(rule)["0"], axis=0)
    for _ in range(200):
        model(x)
        rule.discard()
    found, jacobian = matrices(rule)["0"], as_array(model.get_parameter("1.weight"))
    cosines = (found * jacobian).sum(axis=0) / np.linalg.norm(found, axis=0) / np.linalg.norm(jacobian, axis=0)
    assert cosines.min() > 0.98
    np.testing.assert_allclose(np.linalg.norm(found, axis=0), lengths, rtol=1e-5)


def test_grape_says_that_it_learns_nothing_from_one_number_a_row() -> None:
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 1))
    rule = dfa.GradientAlignedFeedback(model, ["1"], lr=0.3)
    with pytest.warns(UserWarning, match="for an error of one number a row there are no directions to learn"):
        model(torch.randn(50, 5))
    before = matrices(rule)["1"].copy()
    for _ in range(3):
        rule.discard()
        model(torch.randn(50, 5))
    np.testing.assert_allclose(matrices(rule)["1"], before, rtol=1e-6)


def test_shaking_changes_neither_values_nor_gradients_above(mlp: nn.Sequential, batch: Batch) -> None:
    expected = backpropagated(mlp, lambda: cross_entropy(mlp(batch[0]), batch[1]))
    plain = mlp(batch[0]).detach()
    rule = dfa.ForwardDirectFeedback(mlp, ["1", "3"])
    logits = mlp(batch[0])
    assert torch.equal(logits.detach(), plain)
    mlp.zero_grad()
    rule.backward(cross_entropy(logits, batch[1]))
    assert torch.equal(gradients(mlp)["4.weight"], expected["4.weight"])


@pytest.mark.parametrize("rule", ["fdfa", "grape"])
def test_shaking_under_autocast_takes_tangents_of_another_precision(rule: str) -> None:
    """Batch normalisation answers half-precision activations with single-precision tangents."""
    torch.manual_seed(0)
    layers = [nn.Sequential(nn.Linear(5, 5), nn.BatchNorm1d(5), nn.ReLU()) for _ in range(2)]
    model = nn.Sequential(*layers, nn.Linear(5, 3))
    learner = dfa.RULES.build(rule, model, ["0", "1"])
    with torch.autocast("cpu", torch.bfloat16):
        loss = cross_entropy(model(torch.randn(40, 5)), torch.arange(40) % 3)
    learner.backward(loss)
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())


def test_shaking_stops_with_the_forward_pass(mlp: nn.Sequential, batch: Batch) -> None:
    rule = dfa.ForwardDirectFeedback(mlp, ["1", "3"])
    with pytest.raises(RuntimeError):
        mlp(torch.randn(2, 9, dtype=torch.double))
    assert torch.autograd.forward_ad._current_level == -1
    before = step(rule, mlp, batch)
    assert before and torch.autograd.forward_ad._current_level == -1
