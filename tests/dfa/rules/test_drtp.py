"""Targets of direct random target projection: found however sure the output is, or refused."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    cross_entropy,
    huber_loss,
    kl_div,
    log_softmax,
    mse_loss,
    nll_loss,
    one_hot,
    smooth_l1_loss,
)

import dfa
from dfa.base.direct import Memory
from tests.dfa.steps import Batch

Loss = Callable[[Tensor], Tensor]
TARGETS = torch.tensor([0, 1, 2, 0])
HOT = one_hot(TARGETS, 3).float()
SOFT = 0.9 * HOT + 0.1 / 3


class Sure(nn.Module):
    """Puts out some logits, whatever it takes in, with a layer below that gets signals."""

    def __init__(self, logits: Tensor, dtype: torch.dtype = torch.float) -> None:
        super().__init__()
        self.layer, self.logits = nn.Linear(5, 4), nn.Parameter(logits)
        self.to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        nothing = 0 * self.layer(x).sum(1)
        return self.logits + nothing.reshape(-1, *[1] * (self.logits.ndim - 1))


def assert_signal(model: Sure, loss: Loss, hot: Tensor, memory: Memory = "keep") -> None:
    """Compare the gradient at the point with that of -y* B / n."""
    dtype = model.logits.dtype
    x = torch.randn(len(hot), 5).to(dtype)
    with dfa.DirectRandomTargetProjection(model, "layer", memory=memory) as rule:
        rule.backward(loss(model(x)))
        signal = -hot.float() / hot.any(1).sum() @ next(iter(rule.feedback.drawn.values()))
        expected = signal.T @ x.float()
    assert model.layer.weight.grad is not None
    torch.testing.assert_close(
        model.layer.weight.grad.float(), expected, atol=0.02 * (dtype == torch.bfloat16), rtol=1e-5
    )


@pytest.mark.parametrize("memory", ["keep", "recompute"])
@pytest.mark.parametrize(
    ("gap", "dtype"), [(5, torch.float), (20, torch.float), (200, torch.float), (7, torch.bfloat16)]
)
def test_sure_outputs(gap: float, dtype: torch.dtype, memory: Memory) -> None:
    """The target's error rounds to 0, and at last the whole row's."""
    assert_signal(Sure(gap * HOT, dtype), lambda out: cross_entropy(out, TARGETS), HOT, memory)


HALF = torch.tensor([True, False, True, True])
WAYS: dict[str, tuple[Loss, Tensor]] = {
    "flattened": (lambda out: cross_entropy(out.unsqueeze(1).flatten(0, 1).float() / 0.5, TARGETS), HOT),
    "mask": (lambda out: cross_entropy(out[HALF], TARGETS[HALF]), HOT * HALF[:, None]),
    "first rows": (lambda out: cross_entropy(out[:3], TARGETS[:3]), HOT * (torch.arange(4) < 3)[:, None]),
    "ignored": (lambda out: cross_entropy(out, TARGETS.where(HALF, -100)), HOT * HALF[:, None]),
    "weighed": (lambda out: (cross_entropy(out, TARGETS, reduction="none") * HALF).sum(), HOT * HALF[:, None]),
    "class weights": (
        lambda out: cross_entropy(out, TARGETS, torch.tensor([2.0, 0.0, 1.0])),
        HOT * (TARGETS != 1)[:, None],
    ),
    "by hand": (lambda out: -log_softmax(out, 1).gather(1, TARGETS[:, None]).mean(), HOT),
    "one-hot": (lambda out: cross_entropy(out, HOT), HOT),
    "transposed": (lambda out: cross_entropy(out.T[None], TARGETS[None]), HOT),
    "in parts": (lambda out: cross_entropy(out[:2], TARGETS[:2]) + 3 * cross_entropy(out[2:], TARGETS[2:]), HOT),
    "with a regulariser": (lambda out: cross_entropy(out, TARGETS) + 0.01 * out.logsumexp(1).square().mean(), HOT),
    "logistic": (lambda out: binary_cross_entropy_with_logits(out, HOT), HOT),
    "logistic, weighed": (
        lambda out: binary_cross_entropy_with_logits(out, HOT, HALF[:, None].float()),
        HOT * HALF[:, None],
    ),
    "probabilities": (lambda out: binary_cross_entropy(out.sigmoid(), HOT), HOT),
}


@pytest.mark.parametrize("way", WAYS)
def test_ways_from_the_error_to_the_loss(way: str) -> None:
    loss, hot = WAYS[way]
    assert_signal(Sure(40 * HOT), loss, hot)


def test_one_sure_output() -> None:
    """One that is right to all digits, and one that the loss does not depend on."""
    clicks = torch.tensor([[1.0], [0.0], [1.0], [1.0]])
    used = torch.tensor([1.0, 1.0, 1.0, 0.0])
    model = Sure(torch.tensor([[50.0], [1.0], [-1.0], [50.0]]))
    x = torch.randn(4, 5)
    rule = dfa.DirectRandomTargetProjection(model, "layer")
    terms = binary_cross_entropy_with_logits(model(x)[:, 0], clicks[:, 0], reduction="none")
    rule.backward((terms * used).sum())
    signal = -clicks * used[:, None] / 3 @ next(iter(rule.feedback.drawn.values()))
    torch.testing.assert_close(model.layer.weight.grad, signal.T @ x)


def smoothed(out: Tensor) -> Tensor:
    likely = log_softmax(out, -1)
    return (0.9 * -likely.gather(1, TARGETS[:, None])[:, 0] + 0.1 * -likely.mean(-1)).mean()


NOT_HARD: dict[str, Loss] = {
    "label smoothing": smoothed,
    "soft targets": lambda out: (-SOFT * log_softmax(out, -1)).sum(-1).mean(),
    "divergence": lambda out: kl_div(log_softmax(out, -1), SOFT, reduction="batchmean"),
    "a loss that rises": lambda out: -nll_loss(log_softmax(out, -1), TARGETS),
    "a logistic loss that rises": lambda out: -binary_cross_entropy_with_logits(out, HOT),
}


@pytest.mark.parametrize("kind", NOT_HARD)
def test_targets_that_are_not_hard(kind: str) -> None:
    """Where the output overshoots, signs show another target."""
    rule = dfa.DirectRandomTargetProjection(model := Sure(HOT * torch.tensor([[9.0], [0.1], [0.1], [0.1]])), "layer")
    with pytest.raises(dfa.FeedbackError, match="soft targets"):
        rule.backward(NOT_HARD[kind](model(torch.randn(4, 5))))


def test_two_targets_of_a_row() -> None:
    rule = dfa.DirectRandomTargetProjection(model := Sure(9 * HOT), "layer")
    out = model(torch.randn(4, 5))
    with pytest.raises(dfa.FeedbackError, match="several targets in a row"):
        rule.backward(0.9 * cross_entropy(out, TARGETS) + 0.1 * cross_entropy(out, TARGETS.flip(0)))


@pytest.mark.parametrize("loss", [mse_loss, smooth_l1_loss, huber_loss, lambda out, hot: (out - hot).abs().sum()])
def test_differences(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    rule = dfa.DirectRandomTargetProjection(model := Sure(2 * HOT), "layer")
    with pytest.raises(dfa.FeedbackError, match="absolute differences"):
        rule.backward(loss(model(torch.randn(4, 5)), HOT))


def test_signs_alone() -> None:
    """Probabilities by another function: targets are read off the error, as long as it shows them."""

    def loss(out: Tensor) -> Tensor:
        return -out.softmax(1).log()[torch.arange(4), TARGETS].mean()

    assert_signal(Sure(HOT.clone()), loss, HOT)
    with pytest.raises(dfa.FeedbackError, match="no negative entry"):
        assert_signal(Sure(20 * HOT), loss, HOT)


def test_a_measurement_of_a_sure_output_goes_on(mlp: nn.Sequential, batch: Batch) -> None:
    """Its targets are read off the error, where a row without one counts as idle."""
    with torch.no_grad():
        mlp.get_parameter("4.bias").copy_(torch.tensor([800.0, 0.0, 0.0]))
    rule = dfa.DirectRandomTargetProjection(mlp, ["1"])
    measured = dfa.measure_alignment(rule, lambda: cross_entropy(mlp(batch[0]), batch[1]))
    assert measured["1"].idle == pytest.approx(3 / 7)
