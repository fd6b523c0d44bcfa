"""Small double-precision models; no test leaves a trace of its random state, or of what it left open, in the next."""

import sys
from collections.abc import Iterator

import pytest
import torch
from torch import nn


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)
    if "torch._dynamo" in sys.modules:  # importing it takes seconds
        torch.compiler.set_stance("default")  # a forward pass without a backward may have left another


@pytest.fixture
def mlp() -> nn.Sequential:
    """5 → 8 → 6 → 3; activations at 1 and 3."""
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3)).double()


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(7, 5, dtype=torch.double), torch.arange(7) % 3
