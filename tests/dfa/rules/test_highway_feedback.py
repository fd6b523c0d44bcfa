"""Feedback weights between blocks: what they are after each step, and where they take the place of W."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import dfa
from dfa.rules.fitted import RIDGE
from dfa.rules.highway import Feedback
from tests.dfa.reference import as_array, assert_same, backpropagated, gradients
from tests.dfa.residual import LAST, POINTS, residual_network, wave_gradients
from tests.dfa.steps import Batch, step

DECAY = 0.05
FEEDBACK: tuple[Feedback, ...] = ("transport", "learned_zero", "fitted", "kolen_pollack", "sign")


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in model.named_parameters() if weight.ndim > 1}


def at_start(feedback: str, model: nn.Module) -> dict[str, Tensor]:
    """B before the first step."""
    weights = weights_of(model)
    if feedback in ("learned_zero", "fitted"):
        return {name: torch.zeros_like(weight) for name, weight in weights.items()}
    if feedback == "kolen_pollack":
        drawn = dfa.FeedbackAlignment(model, seed=2)
        drawn.close()
        return {name: drawn.feedback_weight(name) for name in weights}
    if feedback == "sign":
        return {name: weight.sign() * weight.abs().mean() for name, weight in weights.items()}
    return weights


@pytest.mark.parametrize("waves", [1, 2])
@pytest.mark.parametrize("feedback", [feedback for feedback in FEEDBACK if feedback != "fitted"])
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_four_steps_of_every_feedback(norm: str, feedback: Feedback, waves: int, batch: Batch) -> None:
    """Gradients by explicit Jacobians that hold B, and B, which follows W as its definition says."""
    model, before = residual_network(norm), residual_network(norm)
    between = [name for name in weights_of(model) if name.endswith(("up.weight", "down.weight"))]
    matrices, first = at_start(feedback, model), weights_of(model)
    decay = DECAY if feedback == "kolen_pollack" else dfa.rules.highway.DECAY
    rule = dfa.Highway(model, POINTS, LAST, waves=waves, feedback=feedback, decay=decay, seed=2)
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


def seen(model: nn.Module, x: Tensor) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """What every linear layer takes in and gives out without its bias, by the name of its weight."""
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def see(name: str, layer: nn.Linear, given: Tensor, output: Tensor) -> None:
        found[f"{name}.weight"] = as_array(given).reshape(-1, layer.in_features), as_array(output - layer.bias)

    layers = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    handles = [
        layer.register_forward_hook(lambda module, given, output, name=name: see(name, module, given[0], output))
        for name, layer in layers.items()
    ]
    with torch.no_grad():
        model(x)
    for handle in handles:
        handle.remove()
    return found


def fit(feedback: Tensor, inputs: np.ndarray, outputs: np.ndarray) -> Tensor:
    """B + Rᵀ X (XᵀX + ε I)⁻¹ with R = Y - X Bᵀ."""
    moment = inputs.T @ inputs
    ridge = RIDGE * np.trace(moment) / len(moment)
    unexplained = outputs - inputs @ as_array(feedback).T
    change = unexplained.T @ inputs @ np.linalg.inv(moment + ridge * np.eye(len(moment)))
    return feedback + torch.from_numpy(change)


@pytest.mark.parametrize("every", [1, 2])
def test_fitted_feedback_is_the_least_squares_fit_of_outputs_to_inputs(every: int, batch: Batch) -> None:
    model, before = residual_network("pre"), residual_network("pre")
    matrices = at_start("fitted", model)
    rule = dfa.Highway(model, POINTS, LAST, waves=2, feedback="fitted", every=every)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    for number in range(4):
        before.load_state_dict(model.state_dict())
        expected = wave_gradients(before, batch, 2, feedback=matrices)
        assert_same(step(rule, model, batch), expected, tolerance=1e-9)
        if number % every == 0:
            pairs = seen(before, batch[0])
            matrices = {name: fit(matrix, *pairs[name]) for name, matrix in matrices.items()}
        weights = weights_of(model)
        optimizer.step()
        matrices = {name: matrix + weights_of(model)[name] - weights[name] for name, matrix in matrices.items()}


def test_fitted_feedback_becomes_backpropagation(batch: Batch) -> None:
    """More rows than inputs: the difference to W shrinks by a factor with every fit."""
    model, rows = residual_network("none"), (5 * torch.randn(50, 5).double(), torch.randint(3, (50,)))
    rule = dfa.Highway(model, POINTS, LAST, waves=len(POINTS), feedback="fitted", every=1)
    for _ in range(100):
        step(rule, model, rows)
    found = step(rule, model, batch)
    rule.close()
    expected = backpropagated(model, lambda: cross_entropy(model(batch[0]), batch[1]))
    assert_same(found, expected, tolerance=1e-6)


@pytest.mark.parametrize("between_steps", ["alignment", "evaluation", "pause", "discarded", "unused"])
def test_fitted_feedback_learns_from_training_passes_alone(between_steps: str, batch: Batch) -> None:
    def differences(other_passes: bool) -> dict[str, Tensor]:
        model = residual_network("pre")
        torch.manual_seed(0)
        for parameter in model.parameters():
            nn.init.normal_(parameter)
        rule = dfa.Highway(model, POINTS, LAST, feedback="fitted", every=1)
        step(rule, model, batch)
        if other_passes and between_steps == "alignment":
            dfa.measure_alignment(rule, lambda: cross_entropy(model(3 * batch[0]), batch[1]))
        elif other_passes and between_steps == "evaluation":
            with torch.no_grad():
                model(3 * batch[0])
        elif other_passes and between_steps in ("discarded", "unused"):
            model(3 * batch[0])
            if between_steps == "discarded":
                rule.discard()
        elif other_passes:
            with rule.paused():
                model(3 * batch[0])
        step(rule, model, batch)
        found: dict[str, Tensor] = rule.state_dict()["between"]["differences"]
        return found

    assert_same(differences(True), differences(False), tolerance=0)


def test_a_batch_that_is_not_finite_is_not_fitted(batch: Batch) -> None:
    model = residual_network("none")
    rule = dfa.Highway(model, POINTS, LAST, feedback="fitted")
    saved = copy.deepcopy(rule.state_dict()["between"]["differences"])
    batch[0][0, 0] = torch.inf
    step(rule, model, batch)
    torch.testing.assert_close(rule.state_dict()["between"]["differences"], saved)


def test_fitted_feedback_is_that_of_linear_layers() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = nn.Sequential(nn.TransformerEncoder(layer, 3, enable_nested_tensor=False), nn.Linear(8, 3))
    rule = dfa.Highway(model, ["0.layers.*"], "0", feedback="fitted")
    with pytest.raises(dfa.PointError, match=r"self_attn\.in_proj_weight' is the weight of another module"):
        rule.backward(model(torch.randn(2, 4, 8)).square().mean())


def test_a_layer_that_is_not_called_is_not_fitted() -> None:
    class Uncalled(nn.Linear):
        def __call__(self, x: Tensor) -> Tensor:
            return nn.functional.linear(x, self.weight, self.bias)

    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(Uncalled(4, 4)), nn.Linear(4, 4))
    rule = dfa.Highway(model, ["0", "1"], "2", feedback="fitted")
    with pytest.raises(
        dfa.PointError, match=r"'1\.0\.weight' is the weight of another module, or used without calling"
    ):
        rule.backward(model(torch.randn(2, 4)).square().mean())


def test_fits_are_as_precise_under_autocast(batch: Batch) -> None:
    """One sample without a batch dimension, too."""
    model = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    rule = dfa.Highway(model, ["0", "1"], "2", feedback="fitted", every=1)
    before = weights_of(model)["2.weight"]
    inputs: list[Tensor] = []
    model[2].register_forward_hook(lambda layer, given, output: inputs.append(given[0].detach()))
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(batch[0][0].float()).float().square().mean()
    rule.backward(loss)
    (x,) = (as_array(given.double()).reshape(1, 4) for given in inputs)
    expected = fit(torch.zeros(4, 4).double(), x, x @ as_array(before.double()).T) - before.double()
    found = rule.state_dict()["between"]["differences"]["2.weight"]
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rule_first", [False, True], ids=["model first", "rule first"])
@pytest.mark.parametrize("feedback", FEEDBACK)
def test_resumed_training_is_the_same(feedback: Feedback, rule_first: bool, batch: Batch) -> None:
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
    if rule_first:  # as in Lightning
        resumed.load_state_dict(saved)
    model.load_state_dict(weights)
    if not rule_first:
        resumed.load_state_dict(saved)
    assert_same(train(resumed), expected, tolerance=0)


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("feedback", ["learned_zero", "kolen_pollack"])
def test_weights_that_are_loaded_are_no_update(feedback: Feedback, whole: bool, batch: Batch) -> None:
    model, pretrained = residual_network("pre"), residual_network("pre")
    for parameter in pretrained.parameters():
        nn.init.normal_(parameter)
    matrices = at_start(feedback, model)
    rule = dfa.Highway(model, POINTS, LAST, feedback=feedback, seed=2)
    if whole:
        model.load_state_dict(pretrained.state_dict())
    else:
        for name, module in model.named_modules():
            if isinstance(module, (nn.Linear, nn.LayerNorm)):
                module.load_state_dict(pretrained.get_submodule(name).state_dict())
    expected = wave_gradients(pretrained, batch, 1, feedback=matrices)
    assert_same(step(rule, model, batch), expected, tolerance=1e-11)
    rule.close()
    assert not any(module._load_state_dict_post_hooks for module in model.modules())


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


def test_nothing_decays_where_a_scaler_leaves_out_the_step(batch: Batch) -> None:
    model = residual_network("pre").float()
    rule = dfa.Highway(model, POINTS, LAST, feedback="kolen_pollack", decay=0.1)
    before, differences = weights_of(model), copy.deepcopy(rule.state_dict()["between"])
    scaler = torch.amp.GradScaler("cpu")
    rule.backward(scaler.scale(torch.inf * cross_entropy(model(batch[0].float()), batch[1])))
    assert_same(weights_of(model), before, tolerance=0)
    assert_same(rule.state_dict()["between"], differences, tolerance=0)
    model.zero_grad()
    rule.backward(scaler.scale(cross_entropy(model(batch[0].float()), batch[1])))
    torch.testing.assert_close(weights_of(model)["2.up.weight"], 0.9 * before["2.up.weight"])


@pytest.mark.parametrize("feedback", ["sign", "fitted"])
def test_paused_and_closed_rules_leave_the_model_alone(feedback: Feedback, batch: Batch) -> None:
    model = residual_network()
    rule = dfa.Highway(model, POINTS, LAST, feedback=feedback)
    with rule.paused():
        torch.compile(model, backend="eager", fullgraph=True)(batch[0])
    rule.close()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
