"""What a task's evaluation gives: numbers, or a refusal that leaves nothing behind."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.config import Config
from benchmarks.errors import ConfigError
from benchmarks.registry import TASKS
from benchmarks.run import execute as executing
from benchmarks.run.execute import execute
from benchmarks.run.trainer import evaluate
from benchmarks.task import DataInfo, Task
from tests.conftest import Toys


def _gives(task: Task, monkeypatch: pytest.MonkeyPatch, metrics: object) -> None:
    monkeypatch.setattr(task, "evaluate", lambda model, split: metrics)


def _task(toys: Toys) -> Task:
    executing.load_components(toys.config())
    return executing.build_task(toys.config())


@pytest.mark.parametrize("value", [1, 0.5, True, torch.tensor(0.5), np.float32(0.5), np.array(1)])
def test_single_numbers_become_plain_ones(toys: Toys, monkeypatch: pytest.MonkeyPatch, value: Any) -> None:
    task = _task(toys)
    _gives(task, monkeypatch, {"accuracy": value})
    found = evaluate(task, nn.Identity(), "valid")
    assert found == {"accuracy": float(value)} and type(found["accuracy"]) in (int, float, bool)


def _refusal(toys: Toys, monkeypatch: pytest.MonkeyPatch, change: Callable[[Task], object]) -> str:
    """Run a task that has been changed once it was made; return why the run was refused, which leaves no file."""
    build = executing.build_task

    def built(config: Config) -> Task:
        task = build(config)
        change(task)
        return task

    monkeypatch.setattr(executing, "build_task", built)
    with pytest.raises(ConfigError) as refused:
        execute(toys.config())
    assert toys.files() == []
    return str(refused.value)


@pytest.mark.parametrize(
    ("metrics", "told"),
    [
        ({"accuracy": torch.ones(3)}, "numbers, and 'accuracy' is a Tensor of shape (3,)"),
        ({"accuracy": 0.5, "names": "x"}, "numbers, and 'names' is a str"),
        ([0.5], "a dictionary of numbers, and gives list"),
        (None, "a dictionary of numbers, and gives NoneType"),
        ({"loss": 0.5}, "its metric 'accuracy', and gives loss"),
        ({}, "its metric 'accuracy', and gives nothing"),
    ],
)
def test_what_is_no_number_ends_the_run_without_a_trace(
    toys: Toys, monkeypatch: pytest.MonkeyPatch, metrics: object, told: str
) -> None:
    told_of = _refusal(toys, monkeypatch, lambda task: _gives(task, monkeypatch, metrics))
    assert told_of == f"task 'toy': evaluate must give {told}"


def test_an_epoch_that_cannot_be_counted_is_told_and_leaves_nothing(toys: Toys) -> None:
    with pytest.raises(ConfigError, match="an epoch of task 'toy' cannot be made: ZeroDivisionError"):
        execute(toys.config("task.options.batch_size=0"))
    assert toys.files() == []


def test_an_error_before_training_leaves_nothing(toys: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(config: Config) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(executing, "build_task", broken)
    with pytest.raises(RuntimeError, match="broken"):
        execute(toys.config())
    assert toys.files() == []


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"info": None}, "info must be a DataInfo, got a NoneType"),
        ({"info": DataInfo("toy", "real", notes={"best": [1.0]})}, "its record has an object for 'data'"),  # type: ignore[dict-item]
        ({"info": DataInfo("toy", "real", notes={"best": torch.ones(1)})}, "its record "),  # type: ignore[dict-item]
        ({"info": DataInfo("toy", None)}, "the kind of its data must be one of real, stand-in, got None"),  # type: ignore[arg-type]
        ({"info": DataInfo("toy", "fake")}, "the kind of its data must be one of real, stand-in, got 'fake'"),
        ({"higher_is_better": "yes"}, "its record "),
        ({"metric": 3}, "its record "),
    ],
)
def test_what_no_record_can_hold_is_refused_before_training(
    toys: Toys, monkeypatch: pytest.MonkeyPatch, said: dict[str, Any], told: str
) -> None:
    def change(task: Task) -> None:
        for name, value in said.items():
            monkeypatch.setattr(task, name, value)

    assert _refusal(toys, monkeypatch, change).startswith(f"task 'toy': {told}")


def test_a_task_without_a_metric_is_told(toys: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    told = _refusal(toys, monkeypatch, lambda task: monkeypatch.delattr(type(task), "metric"))
    assert told == "task 'toy' has no metric, by which epochs are compared"


def test_options_for_models_that_are_none_are_told_of_the_task(toys: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    told = _refusal(toys, monkeypatch, lambda task: monkeypatch.setattr(task, "model_options", lambda: None))
    assert told == "model_options of task 'toy' cannot be made: TypeError: 'NoneType' object is not iterable"


def test_a_part_that_leaves_is_told(toys: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    def leave() -> None:
        raise SystemExit(3)

    told = _refusal(toys, monkeypatch, lambda task: monkeypatch.setattr(task, "model_options", leave))
    assert told.startswith("model_options of task 'toy' cannot be made: SystemExit: 3")


def test_a_constructor_without_the_fixed_arguments_is_told(toys: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS._factories, "toy", lambda seed, batch_size: None)
    with pytest.raises(ConfigError) as refused:
        execute(toys.config())
    takes = "must take seed, source, data_dir, download, and lacks source, data_dir, download"
    assert str(refused.value) == f"the constructor of task 'toy' {takes}"
