"""memory="recompute" with several segments at a time: they learn side by side, and hold no more than their graphs."""

import threading
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dfa
from tests.dfa.chains import Chain
from tests.dfa.hooks.test_recompute import train
from tests.dfa.reference import assert_same
from tests.dfa.steps import Batch, step


class _Meeting(torch.autograd.Function):
    """The identity, whose backward waits for others to be in theirs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, barrier: threading.Barrier) -> Tensor:
        ctx.barrier = barrier
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        ctx.barrier.wait()
        return gradient, None


class Meeting(nn.Module):
    """A linear layer that can only be trained together with others of the same barrier."""

    def __init__(self, barrier: threading.Barrier) -> None:
        super().__init__()
        self.linear, self.barrier = nn.Linear(5, 5), barrier

    def forward(self, x: Tensor) -> Tensor:
        return _Meeting.apply(self.linear(x), self.barrier)


@pytest.mark.parametrize(("parallel", "meet"), [(1, False), (2, True)])
def test_segments_learn_at_the_same_time(parallel: int, meet: bool, batch: Batch) -> None:
    barrier = threading.Barrier(2, timeout=10 if meet else 0.1)
    model = nn.Sequential(*(Meeting(barrier) for _ in range(4)), nn.Linear(5, 3)).double()
    rule = dfa.DirectFeedbackAlignment(model, ["0", "1", "2", "3"], memory="recompute", parallel=parallel)
    with nullcontext() if meet else pytest.raises(threading.BrokenBarrierError):
        step(rule, model, batch)


def test_no_more_graphs_than_streams(batch: Batch) -> None:
    """A graph lives from the forward of its segment to the end of its backward."""
    alive, most = 0, 0

    class Counted(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            nonlocal alive, most
            alive += 1
            most = max(most, alive)
            return x.clone()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Any:
            nonlocal alive
            alive -= 1
            return gradient

    class Segment(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            output = super().forward(x)
            return Counted.apply(output) if torch.is_grad_enabled() else output

    model = nn.Sequential(*(Segment(5, 5) for _ in range(9)), nn.Linear(5, 3)).double()
    rule = dfa.DirectFeedbackAlignment(model, [str(i) for i in range(9)], memory="recompute", parallel=2)
    step(rule, model, batch)
    assert alive == 0
    assert 1 <= most <= 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_streams_on_a_gpu() -> None:
    batch = torch.randn(10, 5, dtype=torch.float64, device="cuda"), torch.arange(10, device="cuda") % 3
    found, state, _ = train(lambda: Chain().cuda(), batch, steps=5, points="blocks.*", memory="recompute", parallel=3)
    expected, expected_state, _ = train(lambda: Chain().cuda(), batch, steps=5, points="blocks.*", memory="recompute")
    assert_same(found, expected, tolerance=0)
    for name, value in state.items():
        assert torch.equal(value, expected_state[name]), name
