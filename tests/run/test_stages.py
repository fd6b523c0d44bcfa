"""Runs whose processes share the layers of the backward pass, and the loop of docs/parallel.md, against one process."""

from pathlib import Path

import pytest
import torch
from torch import nn

import dfa
from benchmarks.errors import ConfigError
from benchmarks.run.execute import execute
from benchmarks.run.records import RunFolder
from tests.conftest import Toys
from tests.helpers.stages import CASES, config_of
from tests.helpers.torchrun import two_processes

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes have left, one of which was killed in between."""
    return two_processes(tmp_path_factory, "stages", "parallel.md", "--max-restarts", "1")


@pytest.mark.parametrize("case", CASES)
def test_the_record_is_that_of_one_process(two: Path, tmp_path: Path, case: str) -> None:
    _assert_same_record(case, tmp_path, two / "results")


def test_a_stage_that_is_killed_ends_the_others_and_the_run_goes_on_to_the_same_end(two: Path, tmp_path: Path) -> None:
    assert (two / "killed").exists()
    _assert_same_record("mlp", tmp_path, two / "disturbed")
    record = RunFolder.of(config_of("mlp", two / "disturbed")).read()
    assert record is not None
    for rank in range(2):
        assert int((two / f"steps_{rank}").read_text()) == record["steps"] - 8, "the run began again"


def _assert_same_record(case: str, one: Path, several: Path) -> None:
    record = execute(config_of(case, one))
    alone, staged = RunFolder.of(config_of(case, one)), RunFolder.of(config_of(case, several))
    written = staged.read()
    assert written is not None and (record["processes"], written["processes"]) == (1, 2)
    assert written["config_hash"] == record["config_hash"]
    assert written["metrics"] == record["metrics"]
    assert staged.history() == alone.history()
    assert staged.weights("last").read_bytes() == alone.weights("last").read_bytes()
    assert not staged.checkpoint.exists()


def test_what_stages_refuse(two: Path, toys: Toys) -> None:
    for rank in range(2):
        assert (
            (two / f"rule_{rank}").read_text().startswith("the backward pass of rule 'bp', with these options, cannot")
        )
        assert (two / f"stages_{rank}").read_text().startswith("run.stages=3 needs 3 processes, started by torchrun")
    with pytest.raises(ConfigError, match=r"run\.stages must be at least 1, got 0"):
        toys.config("run.stages=0")
    with pytest.raises(ConfigError, match="--nproc-per-node 2; found: 1"):
        execute(toys.config("rule=dfa", "run.stages=2"))


def test_the_loop_of_the_documentation_equals_one_process(two: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 2))
    rule = dfa.DirectFeedbackAlignment(model, points=["1", "3"])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    x, y = torch.randn(256, 10), torch.randint(2, (256,))
    for _ in range(20):
        optimizer.zero_grad()
        rule.backward(nn.functional.cross_entropy(model(x), y))
        optimizer.step()
    parts = [torch.load(two / f"example_{rank}.pt") for rank in range(2)]
    assert [sorted(part) for part in parts] == [["0.bias", "0.weight"], ["2.bias", "2.weight", "4.bias", "4.weight"]]
    for part in parts:
        for name, value in part.items():
            torch.testing.assert_close(value, model.state_dict()[name], rtol=0, atol=1e-5)
