"""Two processes under DistributedDataParallel and FSDP2: the gradients of one with the whole batch, or one refusal.

All cases run in one pair of processes, which leave a file each for every case.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

import dfa
from tests.dfa.processes import leave_group
from tests.dfa.reference import assert_same
from tests.dfa.refusals import REFUSALS, one_step

pytestmark = pytest.mark.skipif(not distributed.is_available(), reason="torch without distributed")
POINTS = "blocks.*"
FITTED: dict[str, Any] = {"feedback": "fitted", "every": 1, "waves": 2}
LEARNED: dict[str, dict[str, Any]] = {
    "dkp": {}, "low_rank": {"rank": 1}, "fdfa": {}, "grape": {}, "kolen_pollack": {}, "highway": FITTED
}  # fmt: skip


class Stacked(nn.Module):
    """An input layer that belongs to the whole model, blocks, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(4, 6), nn.Linear(6, 3)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(6, 6), nn.Tanh()) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def build() -> tuple[Stacked, Tensor, Tensor]:
    torch.manual_seed(0)
    return Stacked().double(), torch.randn(8, 4).double(), torch.arange(8) % 3


def shard(model: Stacked) -> None:
    from torch.distributed.fsdp import fully_shard

    for block in model.blocks:
        fully_shard(block)
    fully_shard(model)


def whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def train(model: nn.Module, rule: dfa.Rule, rank: int, x: Tensor, targets: Tensor) -> None:
    torch.manual_seed(rank)
    for _ in range(2):
        model.zero_grad()
        rule.backward(cross_entropy(model(x[rank::2]), targets[rank::2]))


def parallel(name: str, unused: bool = False, **options: Any) -> Callable[[int], dict[str, Any]]:
    def case(rank: int) -> dict[str, Any]:
        model, x, targets = build()
        wrapped = DistributedDataParallel(model, find_unused_parameters=unused)
        rule = dfa.RULES.build(name, wrapped, POINTS, **options)
        train(wrapped, rule, rank, x, targets)
        return {"gradients": gradients_of(model), "state": rule.state_dict()}

    return case


def sharded(name: str, rule_first: bool, **options: Any) -> Callable[[int], dict[str, Any]]:
    def case(rank: int) -> dict[str, Any]:
        model, x, targets = build()
        if not rule_first:
            shard(model)
        rule = dfa.RULES.build(name, model, POINTS, **options)
        if rule_first:
            shard(model)
        train(model, rule, rank, x, targets)
        return {"gradients": gradients_of(model)}

    return case


def gradients_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: whole(tensor.grad) for name, tensor in model.named_parameters() if tensor.grad is not None}


SHARDED = ("dfa", "fa", "sign_symmetry")
FROZEN = {"decay": 0.0}
CASES: dict[str, tuple[str, dict[str, Any], Callable[[int], dict[str, Any]]]] = {
    **{f"DDP, {name}": (name, {}, parallel(name)) for name in ("dfa", "drtp", "fa")},
    "DDP, highway": ("highway", FITTED, parallel("highway", **FITTED)),
    **{f"DDP looking for unused, {name}": (name, {}, parallel(name, True)) for name in ("dfa", "drtp", "shallow")},
    "DDP, recompute": ("dfa", {}, parallel("dfa", memory="recompute")),
    "DDP looking for unused, recompute": ("dfa", {}, parallel("dfa", True, memory="recompute")),
    **{f"learned, {name}": (name, options, parallel(name, **options)) for name, options in LEARNED.items()},
    **{f"FSDP2, rule first, {name}": (name, {}, sharded(name, True)) for name in (*SHARDED, "shallow")},
    **{f"FSDP2, rule after, {name}": (name, {}, sharded(name, False)) for name in SHARDED},
    "FSDP2, rule after, kolen_pollack": ("kolen_pollack", FROZEN, sharded("kolen_pollack", False, **FROZEN)),
    "FSDP2, rule first, recompute": ("dfa", {}, sharded("dfa", True, memory="recompute")),
    "FSDP2, rule after, recompute": ("dfa", {}, sharded("dfa", False, memory="recompute")),
}  # fmt: skip


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=2)
    for number, (_, _, case) in enumerate(CASES.values()):
        try:
            result: dict[str, Any] = case(rank)
        except REFUSALS as error:
            result = {"refused": str(error)}
        except Exception as error:
            result = {"failed": f"{type(error).__name__}: {error}"}
        torch.save(result, f"{folder}/{number}_{rank}.pt")
        distributed.barrier()
    leave_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("processes")
    torch.multiprocessing.spawn(work, (str(folder),), nprocs=2)
    return folder


def result(folder: Path, case: str, rank: int) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(folder / f"{list(CASES).index(case)}_{rank}.pt")
    return found


@pytest.mark.parametrize("case", [case for case in CASES if not case.startswith("learned")])
def test_gradients_of_the_whole_batch(case: str, results: Path) -> None:
    name, options, _ = CASES[case]
    model, x, targets = build()
    rule = dfa.RULES.build(name, model, POINTS, **options)
    for _ in range(2):
        expected = one_step(rule, model, lambda: cross_entropy(model(x), targets))
    for rank in range(2):
        found = result(results, case, rank)
        assert "failed" not in found, found["failed"]
        if "refused" in found:
            assert "\n" not in found["refused"]
        else:
            assert_same(found["gradients"], expected, tolerance=1e-6)


@pytest.mark.parametrize("name", LEARNED)
def test_learned_matrices_are_the_same_in_all_processes(name: str, results: Path) -> None:
    """Or the rule refuses: gradients of different rules would be averaged."""
    found = [result(results, f"learned, {name}", rank) for rank in range(2)]
    if any("refused" in one for one in found):
        assert all("refused" in one for one in found)
        return
    pairs = list(zip(tensors(found[0]["state"]), tensors(found[1]["state"]), strict=True))
    assert pairs
    for one, other in pairs:
        torch.testing.assert_close(one, other)


def tensors(state: Any) -> list[Tensor]:
    if isinstance(state, Tensor):
        return [state]
    values = state.values() if isinstance(state, dict) else state if isinstance(state, list) else []
    return [tensor for value in values for tensor in tensors(value)]
