"""The learned channel of low-rank feedback: its update against NumPy, in half precision too, and where it leads."""

import numpy as np
import pytest
import torch
from torch import nn

import dfa
from dfa.hooks.points import Point
from tests.dfa.learning import activations, matrices
from tests.dfa.reference import as_array, assert_close, softmax_error
from tests.dfa.steps import Batch, step


def test_low_rank_channel_in_numpy(mlp: nn.Sequential, batch: Batch) -> None:
    rule = dfa.LowRankFeedback(mlp, ["1"], rank=2, lr=0.5)
    step(rule, mlp, batch)
    before = as_array(rule.channels[""]).copy()
    step(rule, mlp, batch)
    error = softmax_error(activations(mlp, as_array(batch[0]))[3], batch[1].numpy())
    sent = error @ before
    change = (error.T @ sent - before @ sent.T @ sent) / (error**2).sum()
    assert_close(rule.channels[""], before + 0.5 * change)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("autocast", [False, True])
def test_low_rank_learns_from_small_errors_in_half_precision(dtype: torch.dtype, autocast: bool) -> None:
    """Of 1e-5, whose square no float16 holds; in float32, also where the backward pass runs under autocast."""
    rule = dfa.LowRankFeedback(nn.Linear(2, 2), "", rank=2, lr=0.5)
    error, point = (torch.randn(7, 3) * 1e-5).to(dtype), Point("p", torch.zeros(7, 4))
    exact = as_array(error.double())
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        (signal,) = rule.signals("", error, [point])
        before = as_array(rule.channels[""]).copy()
        rule.learn("", error, [point])
    sent = exact @ before
    assert_close(signal * 1e5, 1e5 * sent @ matrices(rule)["p"], tolerance=1e-5)
    change = (exact.T @ sent - before @ sent.T @ sent) / (exact**2).sum()
    np.testing.assert_allclose(as_array(rule.channels[""]), before + 0.5 * change, atol=1e-5)


def test_low_rank_channel_finds_the_main_directions() -> None:
    rule = dfa.LowRankFeedback(nn.Linear(2, 2), "", rank=2, lr=0.3)
    mixing = torch.randn(20, 20) * torch.tensor([5.0, 4.0] + [0.3] * 18)[:, None]
    for _ in range(400):
        rule.learn("", torch.randn(200, 20) @ mixing, [])
    _, vectors = np.linalg.eigh(as_array(mixing.T @ mixing))
    main = vectors[:, -2:] @ vectors[:, -2:].T
    channel = as_array(rule.channels[""])
    np.testing.assert_allclose(channel @ channel.T, main, atol=0.05)


@pytest.mark.parametrize("rank", [3, 16])
def test_full_rank_is_dfa_and_says_so(rank: int, mlp: nn.Sequential, batch: Batch) -> None:
    rule = dfa.LowRankFeedback(mlp, ["1", "3"], rank=rank, lr=0.5)
    with pytest.warns(UserWarning, match=f"a rank of {rank} is not below the error's width, 3: all of it is sent"):
        step(rule, mlp, batch)
    before = rule.channels[""].clone()
    for _ in range(3):
        step(rule, mlp, batch)
    torch.testing.assert_close(rule.channels[""], before)
