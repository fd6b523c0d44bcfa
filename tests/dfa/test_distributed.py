"""Two processes under DistributedDataParallel against one process with the whole batch."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

import dfa
from tests.dfa.processes import leave_group
from tests.dfa.reference import assert_same
from tests.dfa.steps import step

pytestmark = pytest.mark.skipif(not distributed.is_available(), reason="torch without distributed")
CASES = {"output": "", "inside": "3"}
"""Where the error is taken; with it inside the model, two backward calls fill the buckets of one step."""


def build() -> tuple[nn.Sequential, Tensor, Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    return model, torch.randn(8, 5).double(), torch.arange(8) % 3


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=2)
    for name, error_at in CASES.items():
        model, x, targets = build()
        # A bucket per parameter: a reducer that were left waiting for one would show.
        parallel = DistributedDataParallel(model, bucket_cap_mb=1e-4)
        rule = dfa.DirectFeedbackAlignment(parallel, ["1", "3"], error_at=error_at)
        for _ in range(2):  # a second step fails where the first left the reducers unfinished
            parallel.zero_grad()
            rule.backward(cross_entropy(parallel(x[rank::2]), targets[rank::2]))
        torch.save({key: value.grad for key, value in model.named_parameters()}, f"{folder}/{name}_{rank}.pt")
    leave_group()


def test_gradients_are_those_of_the_whole_batch(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(work, (str(tmp_path),), nprocs=2)
    for name, error_at in CASES.items():
        model, x, targets = build()
        expected = step(dfa.DirectFeedbackAlignment(model, ["1", "3"], error_at=error_at), model, (x, targets))
        for rank in range(2):
            assert_same(torch.load(tmp_path / f"{name}_{rank}.pt"), expected, tolerance=1e-12)
