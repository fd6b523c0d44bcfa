"""A network whose layers wait instead of computing, so that more stages than cores can be timed."""

import time
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.speed.workloads import NETWORKS, Workload, regression

_WIDTH = 4


class _Sleep(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, forward: float, backward: float) -> Tensor:
        ctx.seconds = len(x) * backward
        time.sleep(len(x) * forward)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        time.sleep(ctx.seconds)
        return gradients[0], None, None


class Sleeper(nn.Module):
    """A linear layer that takes a given time.

    Args:
        forward, backward: seconds for each row.
    """

    def __init__(self, forward: float, backward: float) -> None:
        super().__init__()
        self.linear = nn.Linear(_WIDTH, _WIDTH)
        self.seconds = forward, backward

    def forward(self, x: Tensor) -> Tensor:
        """Return (rows, width), some time later; nothing is waited for where nothing learns."""
        hidden: Tensor = self.linear(x)
        return _Sleep.apply(hidden, *self.seconds) if torch.is_grad_enabled() else hidden


@NETWORKS.register("sleepers")
def sleepers(device: torch.device, layers: int, forward: float, backward: float, rows: int) -> Workload:
    """Build layers that take `forward` and `backward` seconds for the batch, with a feedback point after each."""
    model = nn.Sequential(*(Sleeper(forward / rows, backward / rows) for _ in range(layers))).to(device)
    points = [str(index) for index in range(layers - 1)]
    return regression(model, torch.rand(rows, _WIDTH, device=device), _WIDTH, points)
