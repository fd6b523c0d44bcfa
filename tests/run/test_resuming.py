"""A run goes on from what fits it: histories are put back, and a checkpoint that does not fit gives way."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.config import Config
from benchmarks.errors import ResultsError
from benchmarks.run import execute as executing
from benchmarks.run import trainer
from benchmarks.run.checkpoints import random_state, set_random_state
from benchmarks.run.execute import execute
from benchmarks.run.position import Position
from benchmarks.run.records import RunFolder
from benchmarks.task import Task
from tests.conftest import Toys
from tests.run.test_execute import _assert_same, _leave_at

_LONG = ["rule=dfa", "trainer.epochs=4", "run.checkpoint_seconds=0"]


def _interrupted(toys: Toys, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A run that ended in its third epoch, with two checkpoints and two evaluations."""
    config = toys.config(*_LONG)
    _leave_at(monkeypatch, config, 13)
    return RunFolder.of(config)


_DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "missing": lambda content: None,
    "empty": lambda content: b"",
    "short": lambda content: content.splitlines(keepends=True)[0],
    "half a line": lambda content: content[:-9],
    "garbage": lambda content: b"\xff\xfe garbage\n" * 3,
    "zeros": lambda content: b"\0" * len(content),
    "another number": lambda content: content.replace(b'"step": 5', b'"step": 6'),
}


@pytest.mark.parametrize("damage", _DAMAGES)
def test_a_damaged_history_is_put_back_from_the_checkpoint(
    toys: Toys, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    folder = _interrupted(toys.elsewhere("broken"), monkeypatch)
    content = _DAMAGES[damage](folder.metrics.read_bytes())
    folder.metrics.unlink()
    if content is not None:
        folder.metrics.write_bytes(content)
    resumed = toys.elsewhere("broken").run(*_LONG)
    assert f"the history in '{folder.path}' was damaged: put back from the checkpoint\n" in capsys.readouterr().out
    _assert_same(toys.run(*_LONG), resumed)


def test_nothing_is_said_of_a_history_that_went_on_after_the_checkpoint(
    toys: Toys, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = _interrupted(toys, monkeypatch)
    folder.append_metrics({"step": 99})
    toys.run(*_LONG)
    assert "damaged" not in capsys.readouterr().out and [row["step"] for row in folder.history()] == [5, 10, 15, 20]


def test_a_history_without_a_checkpoint_is_begun_anew(toys: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = _interrupted(toys, monkeypatch)
    folder.start_over()
    folder.metrics.write_bytes(b"\xff\xff")
    assert toys.run(*_LONG)[0]["status"] == "done" and len(folder.history()) == 4


def _elsewhere(**position: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda state: {**state, "position": {**state["position"], **position}}


_MISFITS: dict[str, Callable[[dict[str, Any]], object]] = {
    "negative epoch": _elsewhere(epoch=-3),
    "huge epoch": _elsewhere(epoch=10**9, step=5 * (10**9 - 1) + 2),
    "another step": _elsewhere(step=1),
    "batch of no epoch": _elsewhere(batch=5),
    "epoch that is a word": _elsewhere(epoch="3"),
    "seconds without end": _elsewhere(seconds=float("inf")),
    "evaluations that are not there": _elsewhere(evaluations=7),
    "other fields": _elsewhere(page=1),
    "no position": lambda state: {key: value for key, value in state.items() if key != "position"},
    "another model": lambda state: {**state, "model": {"weight": torch.zeros(2, 2)}},
    "another optimiser": lambda state: {**state, "optimizer": {"param_groups": [], "state": {}}},
    "no best weights": lambda state: {**state, "best_weights": None},
    "another random state": lambda state: {**state, "random": [torch.zeros(3, dtype=torch.uint8)]},
    "a history of words": lambda state: {**state, "history": ["a", "b"]},
    "inputs of another kind": lambda state: {**state, "inputs": [1]},
    "a list": lambda state: [1, 2],
}


@pytest.mark.parametrize("misfit", _MISFITS)
def test_a_checkpoint_that_does_not_fit_gives_way_to_the_one_before(
    toys: Toys, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], misfit: str
) -> None:
    folder = _interrupted(toys.elsewhere("broken"), monkeypatch)
    state = torch.load(folder.checkpoint, weights_only=True)
    torch.save(_MISFITS[misfit](state), folder.checkpoint)
    resumed = toys.elsewhere("broken").run(*_LONG)
    warned = capsys.readouterr().err
    assert warned.count("\n") == 1 and f"checkpoint '{folder.checkpoint}'" in warned
    assert warned.endswith("; going on from the one before it\n")
    _assert_same(toys.run(*_LONG), resumed)


def test_checkpoints_that_both_do_not_fit_are_kept_and_named(toys: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = _interrupted(toys, monkeypatch)
    for path in (folder.checkpoint, folder.previous_checkpoint):
        torch.save(_elsewhere(epoch=0)(torch.load(path, weights_only=True)), path)
    with pytest.raises(ResultsError, match=r"does not fit its run .*no run has epoch 0.*; delete them to start over"):
        execute(toys.config(*_LONG))
    assert folder.checkpoint.exists() and folder.previous_checkpoint.exists() and not folder.result.exists()


@pytest.mark.parametrize("accumulate", [1, 2, 3, 7])
def test_the_positions_between_two_steps_are_those_that_are_taken_up(accumulate: int) -> None:
    epochs, batches, step = 3, 5, 0
    reached = {(1, 0, 0)}
    for epoch in range(1, epochs + 1):
        for batch in range(1, batches + 1):
            if batch % accumulate == 0 or batch == batches:
                step += 1
                reached.add((epoch, batch, step))
        reached.add((epoch + 1, 0, step))
    for epoch in range(-1, epochs + 3):
        for batch in range(-1, batches + 2):
            for at in range(-1, 20):
                content = vars(Position(epoch=epoch, batch=batch, step=at))
                if (epoch, batch, at) in reached:
                    assert Position.restored(content, epochs, batches, accumulate) == Position(epoch, batch, at)
                else:
                    with pytest.raises(ValueError, match=r"position|no run has"):
                        Position.restored(content, epochs, batches, accumulate)


def test_all_generators_go_on_from_a_checkpoint(tmp_path: Path) -> None:
    def draw() -> list[float]:
        # The second of a pair of normal numbers is kept for the next call, in NumPy and in Python.
        return [torch.rand(1).item(), np.random.randn(), random.gauss(0, 1), random.random()]  # noqa: NPY002

    draw()
    torch.save(random_state(torch.device("cpu")), tmp_path / "state.pt")
    expected = [draw(), draw()]
    set_random_state(torch.device("cpu"), torch.load(tmp_path / "state.pt", weights_only=True))
    assert [draw(), draw()] == expected


def test_memory_is_given_back_with_a_checkpoint(toys: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    given_back: list[bool] = []
    monkeypatch.setattr(trainer, "release_freed_memory", lambda: given_back.append(True))
    toys.run(*_LONG)
    assert given_back


def test_a_task_that_draws_while_it_is_made_is_the_same_in_every_process(
    toys: Toys, monkeypatch: pytest.MonkeyPatch
) -> None:
    build, drawn = executing.build_task, []

    def draws(config: Config) -> Task:
        drawn.append((torch.rand(1).item(), random.random(), np.random.rand()))  # noqa: NPY002
        return build(config)

    monkeypatch.setattr(executing, "build_task", draws)
    for place in ("one", "other"):
        torch.seed()  # as at the start of a process
        toys.elsewhere(place).run("rule=bp")
    assert drawn[0] == drawn[1]
