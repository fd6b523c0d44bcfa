"""Memory of the process over many steps: what a step takes it gives back, under every rule."""

import psutil
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import dfa

STEPS = 500
WIDTH = ROWS = 128
ALLOWED = 8 * 2**20
"""Bytes; one activation a step would be 31 MiB in all."""


def resident() -> int:
    bytes_held: int = psutil.Process().memory_info().rss
    return bytes_held


@pytest.mark.filterwarnings("ignore:rule 'identity':UserWarning")
@pytest.mark.parametrize("backward", [True, False], ids=["steps", "forward passes alone"])
@pytest.mark.parametrize("name", sorted(dfa.RULES))
def test_memory_is_flat(name: str, backward: bool) -> None:
    assert STEPS * WIDTH * ROWS * 4 > 3 * ALLOWED
    model = nn.Sequential(nn.Linear(16, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, 4))
    x, targets = torch.randn(ROWS, 16), torch.arange(ROWS) % 4
    with dfa.RULES.build(name, model, ["1", "3"]) as rule:

        def run(steps: int) -> None:
            for _ in range(steps):
                model.zero_grad()
                loss = cross_entropy(model(x), targets)
                if backward:
                    rule.backward(loss)

        run(STEPS // 5)
        before = resident()
        run(STEPS)
        assert resident() - before < ALLOWED
