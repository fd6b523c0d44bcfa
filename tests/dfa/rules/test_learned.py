"""Feedback that learns: each update against NumPy, where the updates lead, and going on after an interruption."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import dfa
from dfa.hooks.points import Point
from tests.dfa.learning import LEARNED, activations, build, matrices
from tests.dfa.reference import as_array, assert_close, assert_same, backpropagated, gradients, softmax_error
from tests.dfa.steps import Batch, step


@pytest.mark.parametrize("key", LEARNED)
def test_signals_in_numpy(key: str, mlp: nn.Sequential, batch: Batch) -> None:
    """Parameter gradients of a step in the middle of training, given the matrices of that moment."""
    rule = build(key, mlp, ["1", "3"])
    for _ in range(3):
        step(rule, mlp, batch)
    held = matrices(rule)
    channel = as_array(rule.channels[""]).copy() if isinstance(rule, dfa.LowRankFeedback) else np.eye(3)
    frozen = isinstance(rule, dfa.ForwardModeFeedback)  # these learn before the error comes
    loss = cross_entropy(mlp(batch[0]), batch[1])
    held = matrices(rule) if frozen else held
    mlp.zero_grad()
    rule.backward(loss)
    x = as_array(batch[0])
    a1, h1, h2, logits = activations(mlp, x)
    error = softmax_error(logits, batch[1].numpy())
    found = gradients(mlp)
    assert_close(found["0.weight"], ((error @ channel @ held["1"]) * (a1 > 0)).T @ x)
    assert_close(found["2.weight"], ((error @ channel @ held["3"]) * (1 - h2**2)).T @ h1)
    assert_close(found["4.weight"], error.T @ h2)
    assert rule.uses.state == "learned feedback"


@pytest.mark.parametrize("key", LEARNED)
def test_around_the_identity(key: str, batch: Batch) -> None:
    """With ΔB = 0 backpropagation, where identity is; elsewhere, and once it has learned, more than that."""
    model = nn.Sequential(nn.Linear(5, 3), nn.Identity(), nn.Linear(3, 3)).double()
    with torch.no_grad():
        model.get_parameter("2.weight").copy_(torch.eye(3))
    expected = backpropagated(model, lambda: cross_entropy(model(batch[0]), batch[1]))
    more = {"around_identity": True, "scale": 0.0}
    options = LEARNED[key] | ({"every": 10**6} if key in ("fdfa", "grape") else {})
    rule = dfa.RULES.build(key.strip(), model, "0", **options, **more)
    if key in ("fdfa", "grape"):
        rule._recorder.forwards = 1  # not this time
    assert_same(step(rule, model, batch), expected, tolerance=1e-6)


def test_dkp_update_in_numpy(mlp: nn.Sequential, batch: Batch) -> None:
    rule = dfa.DirectKolenPollack(mlp, ["1", "3"], lr=0.2, decay=0.01, optimizer="sgd")
    step(rule, mlp, batch)
    before = matrices(rule)
    step(rule, mlp, batch)
    _, h1, h2, logits = activations(mlp, as_array(batch[0]))
    error = softmax_error(logits, batch[1].numpy())
    for name, activation in (("1", h1), ("3", h2)):
        expected = before[name] - 0.2 * (error.T @ activation + 0.01 * before[name])
        np.testing.assert_allclose(matrices(rule)[name], expected, atol=1e-6)


def test_dkp_reads_activations_as_they_were_at_the_point(batch: Batch) -> None:
    layers = nn.Linear(5, 8).double(), nn.Linear(8, 3).double()
    learned = []
    for inplace in (False, True):
        model = nn.Sequential(layers[0], nn.ReLU(inplace), layers[1])
        rule = dfa.DirectKolenPollack(model, "0", lr=0.2)
        step(rule, model, batch)
        learned.append(matrices(rule)["0"])
        rule.close()
    np.testing.assert_array_equal(learned[0], learned[1])


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_dkp_goes_on_with_matrices_that_were_replaced(optimizer: Any, mlp: nn.Sequential, batch: Batch) -> None:
    """By a change of type and, as a move to another device does, by copies; Adam's state goes on too."""
    rule = dfa.DirectKolenPollack(mlp, ["3"], lr=0.05, decay=0.01, optimizer=optimizer)
    rule.feedback.prepare("", mlp(batch[0]).detach(), [Point("3", mlp[:4](batch[0]))])
    expected = matrices(rule)["3"].copy()
    _, _, h2, logits = activations(mlp, as_array(batch[0]))
    error = softmax_error(logits, batch[1].numpy())
    mean, square = np.zeros_like(expected), np.zeros_like(expected)
    for count in range(1, 7):
        if count == 3:
            rule.feedback.drawn.update({key: matrix.double() for key, matrix in rule.feedback.drawn.items()})
        if count == 5:
            rule.feedback.drawn.update({key: matrix.clone() for key, matrix in rule.feedback.drawn.items()})
        step(rule, mlp, batch)
        gradient = error.T @ h2 + 0.01 * expected
        mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
        adam = mean / (1 - 0.9**count) / (np.sqrt(square / (1 - 0.999**count)) + 1e-8)
        expected = expected - 0.05 * (gradient if optimizer == "sgd" else adam)
        np.testing.assert_allclose(matrices(rule)["3"], expected, atol=1e-5)


def test_dkp_meets_the_weights_of_a_linear_readout(mlp: nn.Sequential, batch: Batch) -> None:
    """Kolen and Pollack's theorem: for the topmost point feedback and weights get the same updates, and decay alike."""
    rule = dfa.DirectKolenPollack(mlp, ["3"], lr=0.1, decay=0.05, optimizer="sgd")
    weight = mlp.get_parameter("4.weight")
    optimizer = torch.optim.SGD([weight], lr=0.1, weight_decay=0.05)
    for _ in range(1200):
        optimizer.zero_grad()
        rule.backward(cross_entropy(mlp(batch[0]), batch[1]))
        optimizer.step()
    np.testing.assert_allclose(matrices(rule)["3"], as_array(weight), atol=0.01)


class TwoHeads(nn.Module):
    """A trunk with one point, and two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.one, self.two = nn.Linear(5, 6), nn.Linear(6, 3), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.trunk(x)
        return self.one(hidden) + self.two(hidden)


@pytest.mark.parametrize("key", LEARNED)
def test_point_that_names_one_of_two_error_tensors(key: str, batch: Batch) -> None:
    model = TwoHeads().double()
    rule = build(key, model, {"trunk": "one"})
    before = copy.deepcopy(rule.feedback)
    torch.manual_seed(11)
    shake = as_array(torch.randn(7, 6, dtype=torch.double))
    torch.manual_seed(11)
    logits = model(batch[0])
    rule.backward(cross_entropy(logits, batch[1]))
    error, x = softmax_error(as_array(logits), batch[1].numpy()), as_array(batch[0])
    found = gradients(model)
    hidden = as_array(model.trunk(batch[0]))
    assert_close(found["one.weight"], error.T @ hidden)
    assert_close(found["two.weight"], error.T @ hidden)
    assert [name.split(":")[0] for name, _ in rule.feedback.drawn.items()] == ["one"]
    if key == "fdfa":
        (drawn,) = before.matrices("one", logits, [Point("trunk", torch.zeros(7, 6))]).values()
        held = 0.7 * as_array(drawn) + 0.3 * (shake @ as_array(model.one.weight).T).T @ shake / 7
        np.testing.assert_allclose(matrices(rule)["trunk"], held, atol=1e-6)
        assert_close(found["trunk.weight"], (error @ held).T @ x)


def test_rows_that_share_an_error() -> None:
    """A point with two rows for each of the error's: the update is the transpose of the projection."""
    feedback = dfa.FeedbackMatrices(sharing="per_point")
    error, values = torch.randn(3, 4).double(), torch.randn(6, 5).double()
    (signal,) = feedback.signals("", error, [Point("p", values)])
    (matrix,) = feedback.drawn.values()
    outer = feedback.outer(error, values, "p")
    torch.testing.assert_close((signal * values).sum(), (outer * matrix.double()).sum())
    assert feedback.matrices("", error, [Point("p", values)])["p"] is matrix


@pytest.mark.parametrize("key", LEARNED)
def test_going_on_after_an_interruption(key: str, mlp: nn.Sequential, batch: Batch) -> None:
    rule = build(key, mlp, ["1", "3"])
    optimizer = torch.optim.SGD(mlp.parameters(), lr=0.1)

    def train(rule: dfa.Rule, steps: int) -> list[dict[str, Tensor]]:
        found = []
        for _ in range(steps):
            found.append(step(rule, mlp, batch))
            optimizer.step()
        return found

    train(rule, 3)
    saved = copy.deepcopy((mlp.state_dict(), rule.state_dict(), torch.get_rng_state()))
    expected = train(rule, 3)
    rule.close()
    mlp.load_state_dict(saved[0])
    resumed = build(key, mlp, ["1", "3"], seed=8)
    resumed.load_state_dict(saved[1])
    torch.set_rng_state(saved[2])
    for found, wanted in zip(train(resumed, 3), expected, strict=True):
        assert_same(found, wanted, tolerance=0)


@pytest.mark.parametrize("key", LEARNED)
def test_a_rule_that_took_over_a_state_leaves_the_first_alone(key: str, mlp: nn.Sequential, batch: Batch) -> None:
    first = build(key, mlp, ["1", "3"])
    for _ in range(2):
        step(first, mlp, batch)
    kept = copy.deepcopy(first.state_dict())
    first.close()
    second = build(key, mlp, ["1", "3"])
    second.load_state_dict(first.state_dict())
    for _ in range(2):
        step(second, mlp, batch)
    assert _flat(first.state_dict()) == _flat(kept)


def _flat(state: Any) -> list[Any]:
    """All numbers in nested dictionaries and lists."""
    if isinstance(state, dict):
        return [number for item in state.values() for number in _flat(item)]
    if isinstance(state, (list, tuple)):
        return [number for item in state for number in _flat(item)]
    return state.flatten().tolist() if isinstance(state, Tensor) else [state]


@pytest.mark.parametrize("key", LEARNED)
def test_measuring_alignment_teaches_nothing(key: str, mlp: nn.Sequential, batch: Batch) -> None:
    rule = build(key, mlp, ["1", "3"])
    step(rule, mlp, batch)
    before = copy.deepcopy(rule.state_dict())
    dfa.measure_alignment(rule, lambda: cross_entropy(mlp(batch[0]), batch[1]))
    assert str(before) == str(rule.state_dict())


@pytest.mark.parametrize("key", LEARNED)
def test_learning_is_refused_in_a_compiled_graph(key: str, mlp: nn.Sequential, batch: Batch) -> None:
    torch.compiler.reset()
    rule = build(key, mlp, ["1", "3"])
    compiled = torch.compile(mlp, fullgraph=True, backend="aot_eager")
    with pytest.raises(Exception, match="compile"):
        rule.backward(cross_entropy(compiled(batch[0]), batch[1]))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("dkp", {"optimizer": "lion"}, "unknown optimizer 'lion'"),
        ("low_rank", {"rank": 0}, "rank must be at least 1"),
        ("fdfa", {"beta": 2.0}, "beta must be from 0 to 1"),
        ("fdfa", {"every": 0}, "every must be at least 1"),
        ("sign_symmetry", {"magnitude": "large"}, "unknown magnitude 'large'"),
        ("identity", {"otherwise": "skip"}, "unknown otherwise 'skip'"),
    ],
)
def test_impossible_options(name: str, options: dict[str, Any], message: str, mlp: nn.Sequential) -> None:
    with pytest.raises(ValueError, match=message):
        dfa.RULES[name](mlp, ["1"], **options)
    with pytest.raises(dfa.registry.OptionError, match=r"has no option '(memory|nonsense)'"):
        dfa.RULES.build(
            name, mlp, ["1"], **({"nonsense": 1} if name in ("identity", "sign_symmetry") else {"memory": "keep"})
        )


@pytest.mark.parametrize("name", ["fdfa", "grape", "highway", "fa", "sign_symmetry", "kolen_pollack"])
def test_rules_that_a_compiler_would_spoil_refuse(name: str, mlp: nn.Sequential, batch: Batch) -> None:
    torch.compiler.reset()
    dfa.RULES.build(name, mlp, ["1", "3"])
    with pytest.raises(dfa.PointError, match=f"'{name}' cannot run inside torch.compile"):
        torch.compile(mlp, backend="aot_eager")(batch[0])
