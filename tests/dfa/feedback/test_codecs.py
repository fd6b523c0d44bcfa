"""What coarse channels make of an error, sparse matrices, and targets in place of errors."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

import dfa
from dfa.base.direct import Memory
from dfa.feedback.codecs import parse_codec
from dfa.feedback.matrices import Draw
from dfa.hooks.points import Point
from tests.dfa.reference import as_array, assert_close, assert_same, backpropagated, only_matrix, softmax_error
from tests.dfa.steps import Batch, step

ERROR = torch.tensor([[0.1, -0.4, 0.0], [1.0, -0.05, -0.25]], dtype=torch.double)
RMS = np.sqrt((0.1**2 + 0.4**2 + 1 + 0.05**2 + 0.25**2) / 6)


@pytest.mark.parametrize(
    ("codec", "expected"),
    [
        ("sign", 0.3 * np.array([[1, -1, 0], [1, -1, -1]])),  # 0.3 = 1.8 / 6
        ("ternary:0.5", 0.55 * np.array([[0, -1, 0], [1, 0, -1]])),  # 0.5 rms = 0.23; 0.55 = 1.65 / 3
        ("bits:3", np.array([[0, -1 / 3, 0], [1, 0, -1 / 3]])),  # steps of 1/3
        ("bits:2", np.array([[0, 0, 0], [1, 0, 0]])),
    ],
)
def test_codes_by_hand(codec: str, expected: np.ndarray) -> None:
    coded = parse_codec(codec)
    assert coded is not None
    assert 0.5 * RMS < 0.25
    np.testing.assert_allclose(as_array(coded(ERROR)), expected, atol=1e-12)
    assert torch.equal(coded(torch.zeros(2, 3)), torch.zeros(2, 3))


def test_noise_has_the_size_asked_for() -> None:
    coded = parse_codec("noise:0.5")
    assert coded is not None
    error = torch.randn(200, 300) * 0.01
    torch.manual_seed(5)
    first = coded(error)
    assert abs((first - error).std().item() / error.square().mean().sqrt().item() - 0.5) < 0.01
    torch.manual_seed(5)
    assert torch.equal(coded(error), first)


def test_noise_does_not_depend_on_strides() -> None:
    coded = parse_codec("noise:1")
    assert coded is not None
    torch.manual_seed(5)
    expected = coded(ERROR)
    torch.manual_seed(5)
    torch.testing.assert_close(coded(ERROR.T.contiguous().T), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("codec", ["sign", "ternary:0.5", "bits:8", "noise:0.1"])
def test_small_errors_in_half_precision(codec: str, dtype: torch.dtype) -> None:
    """Of 1e-5, whose square no float16 holds, nor a step of a 127th; and many, whose sum it does not hold."""
    coded, error = parse_codec(codec), (torch.randn(300, 400) * 1e-5).to(dtype)
    assert coded is not None
    torch.manual_seed(5)
    found = as_array(coded(error).double())
    exact = as_array(error.double())
    size, rms = np.abs(exact), np.sqrt((exact**2).mean())
    if codec == "sign":
        expected = np.sign(exact) * size.mean()
    elif codec == "ternary:0.5":
        expected = np.sign(exact) * (size > 0.5 * rms) * size[size > 0.5 * rms].mean()
    elif codec == "bits:8":
        expected = np.round(exact / size.max() * 127) * size.max() / 127
    else:
        torch.manual_seed(5)
        expected = exact + 0.1 * rms * as_array(torch.randn(300, 400))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-10)
    large = coded(torch.full((300, 400), 1000.0, dtype=dtype))
    torch.testing.assert_close(large.mean().item(), 1000.0, rtol=1e-2, atol=0)


@pytest.mark.parametrize(
    "codec",
    [
        *("morse", "sign:2", "ternary", "ternary:x", "ternary:-1", "ternary:inf", "ternary:nan"),
        *("bits:1", "bits:65", "bits:2000", "bits:2.9", "bits:inf", "bits:-inf", "bits:nan"),
        *("noise:", "noise:inf", "noise:-inf", "noise:nan", "noise:1e999"),
    ],
)
def test_unknown_codecs(codec: str) -> None:
    with pytest.raises(dfa.FeedbackError, match=f"unknown codec '{codec}'; known: sign, ternary"):
        dfa.DirectFeedbackAlignment(nn.Linear(2, 2), codec=codec)


@pytest.mark.parametrize("codec", ["bits:4.0", "bits:64"])
def test_numbers_of_bits(codec: str) -> None:
    coded = parse_codec(codec)
    assert coded is not None
    steps = 2 ** (int(float(codec[5:])) - 1) - 1
    np.testing.assert_allclose(as_array(coded(ERROR)), np.round(as_array(ERROR) * steps) / steps, atol=1e-15)


@pytest.mark.parametrize("memory", ["keep", "recompute"])
def test_points_get_the_coded_error_and_the_top_the_true_one(memory: Memory, mlp: nn.Sequential, batch: Batch) -> None:
    true = backpropagated(mlp, lambda: cross_entropy(mlp(batch[0]), batch[1]))
    rule = dfa.DirectFeedbackAlignment(mlp, ["1", "3"], codec="sign", memory=memory)
    found = step(rule, mlp, batch)
    assert torch.equal(found["4.weight"], true["4.weight"])
    error = softmax_error(as_array(mlp(batch[0])), batch[1].numpy())
    coded = np.sign(error) * np.abs(error).mean()
    first = as_array(batch[0]) @ as_array(mlp.get_parameter("0.weight")).T + as_array(mlp.get_parameter("0.bias"))
    signal = coded @ as_array(only_matrix(rule))[:, :8] * (first > 0)
    assert_close(found["0.weight"], signal.T @ as_array(batch[0]))


def test_alignment_is_that_of_the_coded_error(mlp: nn.Sequential, batch: Batch) -> None:
    def aligned(codec: str | None) -> Tensor:
        rule = dfa.DirectFeedbackAlignment(mlp, ["1"], codec=codec)
        found = dfa.measure_alignment(rule, lambda: cross_entropy(mlp(batch[0]), batch[1]))
        rule.close()
        return found["1"].cosines

    assert not torch.allclose(aligned(None), aligned("sign"))


@pytest.mark.parametrize("draw", ["torch", "counter"])
def test_sparse_matrices(draw: Draw) -> None:
    matrices = dfa.FeedbackMatrices(draw=draw, density=0.1, normalise=False)
    matrices._draw_once("a", 200, 300)
    (sparse,) = matrices.drawn.values()
    filled = sparse != 0
    assert abs(filled.double().mean().item() - 0.1) < 0.01
    assert abs(sparse.square().mean().item() - 1 / 3) < 0.02  # as without thinning
    for density in (0.0, 1.5):
        with pytest.raises(dfa.FeedbackError, match="density must be above 0 and at most 1"):
            dfa.FeedbackMatrices(density=density)


def test_sparse_matrices_that_are_never_kept() -> None:
    error, point = torch.randn(4, 9), [Point("p", torch.randn(4, 5))]
    kept = dfa.FeedbackMatrices(draw="counter", density=0.3)
    fleeting = dfa.FeedbackMatrices(draw="counter", density=0.3, keep=False)
    assert torch.equal(next(kept.signals("", error, point)), next(fleeting.signals("", error, point)))


def test_targets_in_place_of_errors(mlp: nn.Sequential, batch: Batch) -> None:
    """Loss on five of seven rows: -y* B / 5 for these, nothing for the others."""
    x, targets = batch
    rule = dfa.DirectRandomTargetProjection(mlp, ["1"])
    logits = mlp(x)
    rule.backward(cross_entropy(logits[:5], targets[:5]))
    weight, bias = mlp.get_parameter("0.weight"), mlp.get_parameter("0.bias")
    first = as_array(x) @ as_array(weight).T + as_array(bias)
    wanted = np.zeros((7, 3))
    wanted[np.arange(5), targets[:5].numpy()] = -1 / 5
    delta = wanted @ as_array(only_matrix(rule)) * (first > 0)
    assert_close(weight.grad, delta.T @ as_array(x))


def test_logistic_targets(batch: Batch) -> None:
    model = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 1)).double()
    clicks = (batch[1] == 0).double()[:, None]
    rule = dfa.DirectRandomTargetProjection(model, ["0"])
    rule.backward(binary_cross_entropy_with_logits(model(batch[0]), clicks))
    delta = as_array(-clicks / 7) @ as_array(only_matrix(rule))
    assert_close(model.get_parameter("0.weight").grad, delta.T @ as_array(batch[0]))


def test_targets_of_a_batch_in_parts(mlp: nn.Sequential, batch: Batch) -> None:
    """In k parts, each with its loss divided by k, signals are k times too large, and a rule says that it is so."""
    x, targets = batch[0][:6], batch[1][:6]
    rule = dfa.DirectRandomTargetProjection(mlp, ["1"])
    whole = step(rule, mlp, (x, targets))["0.weight"]
    mlp.zero_grad()
    for part, wanted in zip(x.split(2), targets.split(2), strict=True):
        rule.backward(cross_entropy(mlp(part), wanted) / 3)
    assert_close(mlp.get_parameter("0.weight").grad, 3 * whole)
    assert rule.whole_batches
    rule.close()
    for name in ("drtp", "dfa"):
        with dfa.Calibrated(mlp, ["1"], rule=name) as calibrated:
            assert calibrated.whole_batches is (name == "drtp")


def test_targets_are_for_classification(mlp: nn.Sequential, batch: Batch) -> None:
    rule = dfa.DirectRandomTargetProjection(mlp, ["1"])
    with pytest.raises(dfa.FeedbackError, match="'drtp' is for classification"):
        rule.backward((mlp(batch[0]) - 10).square().mean())


def test_many_bits_change_little(mlp: nn.Sequential, batch: Batch) -> None:
    rule = dfa.DirectFeedbackAlignment(mlp, ["1"])
    plain = step(rule, mlp, batch)
    rule.close()
    fine = dfa.DirectFeedbackAlignment(mlp, ["1"], codec="bits:24")
    assert_same(step(fine, mlp, batch), plain, tolerance=1e-4)
