"""Alignment with backpropagation, against computations that do not share its code."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import dfa
from dfa.alignment import row_cosines
from tests.dfa.reference import Array, as_array, gradients, only_matrix, softmax_error
from tests.dfa.steps import Batch, step


def rows_cosine(first: Array, second: Array) -> Array:
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return (first * second).sum(axis=1) / norms


@pytest.mark.parametrize("piece", [1, 20, 1 << 20])
def test_against_numpy(mlp: nn.Sequential, batch: Batch, monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    monkeypatch.setattr("dfa.alignment.PIECE_ENTRIES", piece)
    x, targets = batch
    rule = dfa.DirectFeedbackAlignment(mlp, ["1", "3"])
    found = dfa.measure_alignment(rule, lambda: cross_entropy(mlp(x), targets))
    w1, b1, w2, b2, w3, b3 = (as_array(parameter) for parameter in mlp.parameters())
    h1 = np.maximum(as_array(x) @ w1.T + b1, 0)
    h2 = np.tanh(h1 @ w2.T + b2)
    error = softmax_error(h2 @ w3.T + b3, targets.numpy())
    true2 = error @ w3
    true1 = (true2 * (1 - h2**2)) @ w2
    matrix = as_array(only_matrix(rule))
    assert list(found) == ["1", "3"]
    for name, activation, true in (("1", h1, true1), ("3", h2, true2)):
        signal = error @ matrix[:, : true.shape[1]]
        cosines = rows_cosine(signal, true)
        np.testing.assert_allclose(found[name].cosines.numpy(), cosines, atol=1e-6)
        assert found[name].mean == pytest.approx(cosines.mean(), abs=1e-6)
        assert found[name].std == pytest.approx(cosines.std(ddof=1), abs=1e-6)
        for norm, rows in (
            (found[name].activation_norm, activation),
            (found[name].signal_norm, signal),
            (found[name].bp_norm, true),
        ):
            assert norm == pytest.approx(np.linalg.norm(rows, axis=1).mean(), rel=1e-6)


def test_complex_numbers_are_pairs() -> None:
    """The angle between rows in the plane: of ⟨a, b⟩ the real part."""
    model = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3)).to(torch.cdouble)
    x = torch.randn(7, 5, dtype=torch.cdouble)
    rule = dfa.DirectFeedbackAlignment(model, "0")
    found = dfa.measure_alignment(rule, lambda: model(x).abs().square().sum())["0"]
    error = 2 * model(x).detach().numpy()
    true = error @ model.get_parameter("1.weight").detach().numpy().conj()
    sent = error @ only_matrix(rule).numpy()
    norms = np.linalg.norm(sent, axis=1) * np.linalg.norm(true, axis=1)
    np.testing.assert_allclose(found.cosines, (sent.conj() * true).sum(1).real / norms, atol=1e-6)
    assert found.bp_norm == pytest.approx(np.linalg.norm(true, axis=1).mean())


def test_it_is_shown_in_one_line(mlp: nn.Sequential, batch: Batch) -> None:
    rule = dfa.DirectFeedbackAlignment(mlp, "3")
    found = dfa.measure_alignment(rule, lambda: cross_entropy(mlp(batch[0]), batch[1]))["3"]
    assert repr(found).startswith("PointAlignment(mean=") and "\n" not in repr(found)


def test_transposed_weights_align_perfectly(mlp: nn.Sequential, batch: Batch) -> None:
    """One layer above the point, feedback through W is backpropagation; through −W it is the opposite."""
    rule = dfa.DirectFeedbackAlignment(mlp, "3")
    expected = step(rule, mlp, batch)
    (matrix,) = rule.feedback.drawn.values()
    matrix.copy_(mlp.get_parameter("4.weight").detach())
    found = dfa.measure_alignment(rule, lambda: cross_entropy(mlp(batch[0]), batch[1]))["3"]
    np.testing.assert_allclose(found.cosines.numpy(), 1, atol=1e-9)
    assert found.signal_norm == pytest.approx(found.bp_norm, rel=1e-6)
    matrix.neg_()
    opposite = dfa.measure_alignment(rule, lambda: cross_entropy(mlp(batch[0]), batch[1]))["3"]
    assert opposite.mean == pytest.approx(-1)
    assert expected.keys() == dict(mlp.named_parameters()).keys()


def test_same_dropout_masks(batch: Batch) -> None:
    """With a point below dropout, BP's signal is zero exactly where the mask of the *same* pass dropped a unit."""
    model = nn.Sequential(nn.Linear(5, 50), nn.Tanh(), nn.Dropout(0.5), nn.Linear(50, 3)).double().train()
    rule = dfa.DirectFeedbackAlignment(model, "1")
    logits: list[Tensor] = []

    def loss() -> Tensor:
        logits.append(model(batch[0]))
        return cross_entropy(logits[-1], batch[1])

    torch.manual_seed(5)
    found = dfa.measure_alignment(rule, loss)["1"]
    torch.manual_seed(5)
    hidden = model[1](model[0](batch[0])).detach()
    mask = torch.nn.functional.dropout(torch.ones_like(hidden), 0.5).numpy()
    weight, bias = (as_array(parameter) for parameter in model[3].parameters())
    out = (as_array(hidden) * mask) @ weight.T + bias
    error = softmax_error(out, batch[1].numpy())
    true = (error @ weight) * mask
    np.testing.assert_allclose(as_array(logits[0]), out, atol=1e-12)
    assert len(logits) == 1, "one forward pass is enough"
    np.testing.assert_allclose(found.cosines.numpy(), rows_cosine(error @ as_array(only_matrix(rule)), true), atol=1e-6)


def test_small_components_and_empty_rows() -> None:
    signal = torch.tensor(
        [[1.0, 9e-9], [0.0, 0.0], [1e-8, 0.0], [1.0, 0.0], [3.0, 4.0], [1e-7, 0.0]], dtype=torch.double
    )
    truth = torch.tensor(
        [[1.0, 1.0], [0.0, 0.0], [0.0, -9e-9], [0.0, 0.0], [4.0, 3.0], [2e-8, 0.0]], dtype=torch.double
    )
    expected = [1 / math.sqrt(2), 1.0, 1.0, 0.0, 24 / 25, 1.0]
    np.testing.assert_allclose(row_cosines(signal, truth).numpy(), expected, atol=1e-12)
    np.testing.assert_allclose(row_cosines(truth, signal).numpy(), expected, atol=1e-12)


def test_nodes_outside_the_loss_count_as_aligned(mlp: nn.Sequential, batch: Batch) -> None:
    rule = dfa.DirectFeedbackAlignment(mlp, "3")
    found = dfa.measure_alignment(rule, lambda: cross_entropy(mlp(batch[0])[:4], batch[1][:4]))["3"]
    assert found.cosines[4:].tolist() == [1.0] * 3
    assert (found.cosines[:4] < 0.999).all()
    assert found.idle == pytest.approx(3 / 7)


def test_leaves_training_untouched(mlp: nn.Sequential, batch: Batch) -> None:
    """Neither `.grad` nor a pass that awaits its backward changes."""
    rule = dfa.DirectFeedbackAlignment(mlp, ["1", "3"])
    expected = step(rule, mlp, batch)
    mlp.zero_grad()
    first, second = mlp.get_parameter("0.weight"), mlp.get_parameter("2.weight")
    first.grad = torch.full_like(first, 7)
    loss = cross_entropy(mlp(batch[0]), batch[1])
    with torch.no_grad():  # as during an evaluation
        dfa.measure_alignment(rule, lambda: cross_entropy(mlp(batch[0][:2]), batch[1][:2]))
    assert set(gradients(mlp)) == {"0.weight"}
    rule.backward(loss)
    torch.testing.assert_close(first.grad - 7, expected["0.weight"], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(second.grad, expected["2.weight"], rtol=0, atol=0)


def _loss(model: nn.Module, batch: Batch) -> Tensor:
    return cross_entropy(model(batch[0]), batch[1])


def test_operations_in_place_change_nothing(batch: Batch) -> None:
    layers = nn.Linear(5, 8).double(), nn.Linear(8, 3).double()
    found = []
    for inplace in (False, True):
        model = nn.Sequential(layers[0], nn.ReLU(inplace), layers[1])
        rule = dfa.DirectFeedbackAlignment(model, "0")
        criterion = partial(_loss, model, batch)
        found.append(dfa.measure_alignment(rule, criterion)["0"])
        rule.close()
    assert torch.equal(found[0].cosines, found[1].cosines) and found[0].bp_norm == found[1].bp_norm
    assert found[0].activation_norm == found[1].activation_norm


def test_rows_are_tokens() -> None:
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    rule = dfa.DirectFeedbackAlignment(model, "1")
    x, targets = torch.randn(2, 4, 5).double(), torch.arange(8) % 3
    tokens = dfa.measure_alignment(rule, lambda: cross_entropy(model(x).flatten(0, 1), targets))["1"]
    flat = dfa.measure_alignment(rule, lambda: cross_entropy(model(x.flatten(0, 1)), targets))["1"]
    assert tokens.cosines.shape == (8,)
    torch.testing.assert_close(tokens.cosines, flat.cosines)


def test_chunks_are_joined(mlp: nn.Sequential, batch: Batch) -> None:
    x, targets = batch
    rule = dfa.DirectFeedbackAlignment(mlp, ["1", "3"])
    whole = dfa.measure_alignment(rule, lambda: cross_entropy(mlp(x), targets))
    parts = dfa.measure_alignment(rule, lambda: cross_entropy(torch.cat([mlp(x[:3]), mlp(x[3:])]), targets))
    for name in whole:
        torch.testing.assert_close(parts[name].cosines, whole[name].cosines)


def test_loss_that_misses_the_error(mlp: nn.Sequential, batch: Batch) -> None:
    rule = dfa.DirectFeedbackAlignment(mlp, "3")
    with pytest.raises(dfa.PointError, match="without reaching an error tensor"):
        dfa.measure_alignment(rule, lambda: mlp[0](batch[0]).sum())
    with pytest.raises(dfa.PointError, match="does not depend on every error tensor"):
        dfa.measure_alignment(rule, lambda: mlp(batch[0]).sum() * 0 + mlp(batch[0]).detach().sum())
    step(rule, mlp, batch)


def test_scalar_activations() -> None:
    """A point with one number per sample and no feature dimension."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inward, self.squeeze, self.out = nn.Linear(5, 1), nn.Flatten(0), nn.Linear(1, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.squeeze(self.inward(x))[:, None])

    model = Net().double()
    rule = dfa.DirectFeedbackAlignment(model, "squeeze")
    found = dfa.measure_alignment(rule, lambda: cross_entropy(model(torch.randn(4, 5).double()), torch.arange(4) % 3))
    assert set(found["squeeze"].cosines.abs().round(decimals=9).tolist()) == {1.0}


@pytest.mark.parametrize("every", [1, 2])
def test_the_other_rule_of_calibrate_is_measured(every: int, mlp: nn.Sequential, batch: Batch) -> None:
    """Also before an exact batch, and no batch is counted."""
    with dfa.DirectFeedbackAlignment(mlp, ["1", "3"], seed=2) as rule:
        expected = dfa.measure_alignment(rule, lambda: _loss(mlp, batch))
    with dfa.RULES.build("calibrate", mlp, ["1", "3"], every=every, seed=2) as rule:
        for _ in range(2):
            found = dfa.measure_alignment(rule, lambda: _loss(mlp, batch))
            assert {key: value.mean for key, value in found.items()} == {
                key: value.mean for key, value in expected.items()
            }
        rule.backward(_loss(mlp, batch))
        assert int(rule.state_dict()["batches"]) == 1


@pytest.mark.parametrize("name", ["bp", "fa", "sign_symmetry", "kolen_pollack", "shallow", "window"])
def test_rules_without_signals_to_points_have_no_alignment(name: str, mlp: nn.Sequential, batch: Batch) -> None:
    with (
        dfa.RULES.build(name, mlp, ["1", "3"]) as rule,
        pytest.raises(dfa.PointError, match=f"rule '{name}' has no signals to compare"),
    ):
        dfa.measure_alignment(rule, lambda: _loss(mlp, batch))
