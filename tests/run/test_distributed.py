"""Two processes, started by torchrun, against one process with the same batches."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import dfa
from benchmarks.commands.train import main
from benchmarks.config import compose_config, resolve
from benchmarks.errors import ConfigError, DataError
from benchmarks.run import distributed
from benchmarks.run.build import build_task, load_components
from benchmarks.run.distributed import Processes
from benchmarks.run.execute import execute
from benchmarks.run.records import RunFolder
from benchmarks.task import cut_rows
from tests.conftest import Command, Toys
from tests.helpers.processes import CASES, RULES, Trajectory, config_of, followed
from tests.helpers.torchrun import two_processes

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes have left, one of which was killed in between."""
    restarts = ("--max-restarts", "1", "--monitor-interval", "0.1")
    return two_processes(tmp_path_factory, "processes", "several_devices.md", *restarts)


def _assert_equal(found: Trajectory, expected: Trajectory, tolerance: float) -> None:
    assert len(found) == len(expected) >= 5
    for step, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            difference = float((ours[name].double() - value.double()).abs().max())
            assert difference <= tolerance, f"{name} differs by {difference} after step {step + 1}"


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("case", CASES)
def test_parameters_follow_those_of_one_process(two: Path, tmp_path: Path, case: str, rule: str) -> None:
    first, second = (torch.load(two / f"{case}_{rule}_{rank}.pt") for rank in range(2))
    config = config_of(case, rule, tmp_path)
    with followed() as alone:
        record = execute(config)
    moved = [name for name in alone[0] if not torch.equal(alone[0][name], alone[-1][name])]
    assert any("running_var" in name for name in moved) == (case == "dcn")
    assert case != "mlp" or record["epochs"] == 3, "the end was decided by validation"
    _assert_equal(first, alone, 1e-5)
    _assert_equal(second, first, 0.0)

    theirs = RunFolder.of(config_of(case, rule, two / "results"))
    written = theirs.read()
    assert written is not None and (record["processes"], written["processes"]) == (1, 2)
    assert written["config_hash"] == record["config_hash"]
    assert written["metrics"] == pytest.approx(record["metrics"], rel=2e-3, abs=1e-4)
    history = RunFolder.of(config).history()
    for row, expected in zip(theirs.history(), history, strict=True):
        assert row == pytest.approx(expected, rel=1e-4)


def test_a_process_that_is_killed_ends_the_others_and_the_run_goes_on_to_the_same_end(two: Path) -> None:
    assert (two / "killed").exists()
    _assert_same_end(two, "undisturbed", "disturbed")
    record = RunFolder.of(Toys(two / "disturbed").config("rule=dfa", "+model.options.dropout=0.3")).read()
    assert record is not None
    for rank in range(2):
        assert int((two / f"steps_{rank}").read_text()) == record["steps"] - 8, "the run began again"


def test_a_request_to_stop_that_reaches_one_process_stops_all_after_the_same_step(two: Path) -> None:
    assert [(two / f"stopped_{rank}").read_text() for rank in range(2)] == ["SIGTERM", "SIGTERM"]
    _assert_same_end(two, "undisturbed", "asked")


def test_rules_that_learn_feedback_from_what_they_see_refuse(two: Path) -> None:
    for rank in range(2):
        assert (two / f"refused_{rank}").read_text().startswith("rule 'dkp' learns its feedback from the rows it sees")


def _assert_same_end(two: Path, *names: str) -> None:
    outcomes = []
    for name in names:
        config = Toys(two / name).config("rule=dfa", "+model.options.dropout=0.3")
        folder = RunFolder.of(config)
        record = folder.read()
        assert record is not None
        outcomes.append((record["metrics"], folder.history(), folder.weights("last").read_bytes()))
        assert not folder.checkpoint.exists()
    assert outcomes[0] == outcomes[1]


def test_a_loss_that_is_not_finite_in_one_process_ends_the_run_in_all(two: Path) -> None:
    record = RunFolder.of(Toys(two / "diverged").config("rule=dfa", "+model.options.dropout=0.3")).read()
    assert record is not None and (record["status"], record["processes"]) == ("diverged", 2)
    assert record["reason"] == "the training loss is nan at step 5"


def test_the_loop_of_the_documentation_equals_one_process(two: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 2))
    rule = dfa.DirectFeedbackAlignment(model, points=["1", "3"], seed=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    x, y = torch.randn(256, 10), torch.randint(2, (256,))
    for _ in range(20):
        optimizer.zero_grad()
        rule.backward(nn.functional.cross_entropy(model(x), y))
        optimizer.step()
    for rank in range(2):
        for name, value in torch.load(two / f"example_{rank}.pt").items():
            torch.testing.assert_close(value, model.state_dict()[name], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("rows", "world"), [(7, 3), (4, 4), (2, 3), (64, 5)])
def test_every_row_is_in_one_part_and_the_weights_add_up(rows: int, world: int) -> None:
    parts = [cut_rows(rows, rank, world) for rank in range(world)]
    assert [row for part, _ in parts for row in range(rows)[part]] == list(range(rows))
    assert sum(weight for _, weight in parts) == pytest.approx(1)
    assert max(len(range(rows)[part]) for part, _ in parts) - min(len(range(rows)[part]) for part, _ in parts) <= 1


@pytest.mark.parametrize(
    "choice",
    [
        ["task=click_log", "model=dcn"],
        ["task=wikitext103", "model=transformer_macro", "task.source=stand_in"],
        ["task=blender_lego", "model=nerf", "task.source=stand_in"],
    ],
    ids=lambda choice: choice[0],
)
def test_the_losses_of_the_parts_add_up_to_the_loss_of_the_batch(choice: list[str]) -> None:
    config = resolve(compose_config([*choice, "scale=smoke"]))
    load_components(config)
    task = build_task(config)
    batch = next(iter(task.train_batches(1)))
    from benchmarks.run.build import build_model

    model = build_model(config, task).eval()
    with torch.no_grad():
        parts = [task.share(batch, rank, 3) for rank in range(3)]
        assert sum(float(task.loss(model, part)) * weight for part, weight in parts) == pytest.approx(
            float(task.loss(model, batch)), rel=1e-5
        )


def test_a_graph_cannot_be_cut() -> None:
    config = resolve(compose_config(["task=cora", "model=gcn", "scale=smoke", "task.source=stand_in"]))
    load_components(config)
    with pytest.raises(ConfigError, match="task 'cora' cannot be trained by 2 processes"):
        build_task(config).share(None, 0, 2)


def test_every_process_takes_a_gpu_of_its_own() -> None:
    assert Processes().own_device("cuda:1") == "cuda:1" and Processes(1, 2).own_device("cpu") == "cpu"
    with pytest.raises(ConfigError, match="=cuda takes one each"):
        Processes(0, 2).own_device("cuda:1")
    if torch.cuda.device_count() == 0:
        with pytest.raises(ConfigError, match="1 processes need as many GPUs; found here: 0"):
            Processes(0, 2).own_device("cuda")


@pytest.mark.parametrize("rank", [0, 1])
def test_a_sweep_under_torchrun_is_refused_by_one_line(
    toys: Toys, command: Command, monkeypatch: pytest.MonkeyPatch, rank: int
) -> None:
    for variable, value in {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "RANK": str(rank)}.items():
        monkeypatch.setenv(variable, value)
    code, out, err = command(main, "-m", *toys.overrides, "seed=0,1")
    assert (code, out) == (2, "")
    assert err == ("error: torchrun carries out one run at a time; leave out -m\n" if rank == 0 else "")


def test_what_the_first_process_raises_all_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exchange is replaced by a list that both ends of it share."""
    line: list[Any] = []

    def broadcast(told: list[Any], src: int, device: torch.device) -> None:
        line.append(list(told)) if not line else told.__setitem__(slice(None), line.pop())

    monkeypatch.setattr(distributed.distributed, "broadcast_object_list", broadcast)

    def fail() -> None:
        raise DataError("no such file")

    for rank in range(2):
        with pytest.raises(DataError, match="no such file"):
            Processes(rank, 2).from_first(fail)
    assert [Processes(rank, 2).from_first(lambda: 5) for rank in range(2)] == [5, 5]
