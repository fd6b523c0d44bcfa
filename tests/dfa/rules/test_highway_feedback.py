"""Feedback weights between blocks: what they are after each step, and where they take the place of W."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import dfa
from dfa.rules.highway import Feedback
from tests.dfa.reference import assert_same, gradients
from tests.dfa.residual import LAST, POINTS, residual_network, wave_gradients
from tests.dfa.steps import Batch, step

DECAY = 0.05
FEEDBACK: tuple[Feedback, ...] = ("transport", "learned_zero", "kolen_pollack", "sign")


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in model.named_parameters() if weight.ndim > 1}


def at_start(feedback: str, model: nn.Module) -> dict[str, Tensor]:
    """B before the first step."""
    weights = weights_of(model)
    if feedback == "learned_zero":
        return {name: torch.zeros_like(weight) for name, weight in weights.items()}
    if feedback == "kolen_pollack":
        drawn = dfa.FeedbackAlignment(model, seed=2)
        drawn.close()
        return {name: drawn.feedback_weight(name) for name in weights}
    if feedback == "sign":
        return {name: weight.sign() * weight.abs().mean() for name, weight in weights.items()}
    return weights


@pytest.mark.parametrize("waves", [1, 2])
@pytest.mark.parametrize("feedback", FEEDBACK)
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_four_steps_of_every_feedback(norm: str, feedback: Feedback, waves: int, batch: Batch) -> None:
    """Gradients by explicit Jacobians that hold B, and B, which follows W as its definition says."""
    model, before = residual_network(norm), residual_network(norm)
    between = [name for name in weights_of(model) if name.endswith(("up.weight", "down.weight"))]
    matrices, first = at_start(feedback, model), weights_of(model)
    rule = dfa.Highway(model, POINTS, LAST, waves=waves, feedback=feedback, decay=DECAY, seed=2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.5)
    for number in range(4):
        before.load_state_dict(model.state_dict())
        expected = wave_gradients(before, batch, waves, feedback=matrices)
        assert_same(step(rule, model, batch), expected, tolerance=1e-11)
        if feedback == "kolen_pollack":
            for name in between:
                torch.testing.assert_close(model.get_parameter(name), before.get_parameter(name) * (1 - DECAY))
                matrices[name] = matrices[name] * (1 - DECAY)
        decayed = weights_of(model)
        unchanged = {name for name, weight in weights_of(before).items() if torch.equal(decayed[name], weight)}
        assert unchanged == decayed.keys() - (between if feedback == "kolen_pollack" else [])
        optimizer.step()
        for name, weight in weights_of(model).items():
            if feedback.startswith(("learned", "kolen")):
                matrices[name] = matrices[name] + weight - decayed[name]
            elif feedback == "sign":
                matrices[name] = weight.sign() * first[name].abs().mean()
            else:
                matrices[name] = weight
        assert number or any(not torch.equal(first[name], weight) for name, weight in weights_of(model).items())


@pytest.mark.parametrize("feedback", FEEDBACK)
def test_resumed_training_is_the_same(feedback: Feedback, batch: Batch) -> None:
    model = residual_network("pre")
    rule = dfa.Highway(model, POINTS, LAST, feedback=feedback, seed=1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)

    def train(rule: dfa.Rule) -> dict[str, Tensor]:
        for _ in range(2):
            optimizer.zero_grad()
            rule.backward(cross_entropy(model(batch[0]), batch[1]))
            optimizer.step()
        return gradients(model)

    train(rule)
    saved, weights = copy.deepcopy(rule.state_dict()), copy.deepcopy(model.state_dict())
    expected = train(rule)
    rule.close()
    resumed = dfa.Highway(model, POINTS, LAST, feedback=feedback, seed=5)
    model.load_state_dict(weights)
    resumed.load_state_dict(saved)
    assert_same(train(resumed), expected, tolerance=0)


def test_state_of_another_feedback_is_refused() -> None:
    learned = dfa.Highway(residual_network(), POINTS, LAST, feedback="learned_zero").state_dict()
    with pytest.raises(ValueError, match="saves nothing"):
        dfa.Highway(residual_network(), POINTS, LAST).load_state_dict(learned)


def test_frozen_weights_do_not_decay(batch: Batch) -> None:
    model = residual_network()
    frozen = model.get_parameter("2.up.weight").requires_grad_(False)
    before = frozen.clone()
    step(dfa.Highway(model, POINTS, LAST, feedback="kolen_pollack", decay=0.1), model, batch)
    assert torch.equal(frozen, before)


def test_paused_and_closed_rules_leave_the_model_alone(batch: Batch) -> None:
    model = residual_network()
    rule = dfa.Highway(model, POINTS, LAST, feedback="sign")
    with rule.paused():
        torch.compile(model, backend="eager", fullgraph=True)(batch[0])
    rule.close()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
