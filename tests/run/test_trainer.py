"""Every option of the training loop, against a loop written out by hand."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from benchmarks.config import Config
from benchmarks.run import execute as execute_module
from benchmarks.run.build import build_model, build_task, load_components
from benchmarks.run.execute import execute
from benchmarks.run.records import RunFolder
from benchmarks.task import Task
from tests.conftest import Toys

Weights = dict[str, Tensor]


def _bare_loop(config: Config, epochs: int, clip_norm: float | None = None) -> tuple[Weights, Task, nn.Module]:
    """Ordinary PyTorch: what a run under backpropagation must amount to, bit for bit."""
    torch.set_num_threads(1)
    load_components(config)
    task = build_task(config)
    model = build_model(config, task)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.optimizer.lr, fused=True)
    for epoch in range(1, epochs + 1):
        model.train()
        for batch in task.train_batches(epoch):
            optimizer.zero_grad()
            task.loss(model, batch).backward()
            if clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
            optimizer.step()
    return model.state_dict(), task, model


def _last(folder: RunFolder) -> Weights:
    return load_file(folder.weights("last"))


def _equal(one: Weights, other: Weights) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("clip_norm", [None, 0.05])
def test_a_run_equals_the_loop_written_by_hand_bit_for_bit(toys: Toys, clip_norm: float | None) -> None:
    options = ["optimizer.lr=0.05", "+model.options.dropout=0.3", f"trainer.clip_norm={clip_norm or 'null'}"]
    record, folder = toys.run(*options)
    expected, task, model = _bare_loop(toys.config(*options), 3, clip_norm)
    assert _equal(_last(folder), expected)
    assert record["steps"] == 15 and record["epochs"] == 3
    # Clipping must have had something to clip, or this would show nothing.
    if clip_norm is not None:
        assert not _equal(expected, _bare_loop(toys.config(*options), 3)[0])
    model.load_state_dict(load_file(folder.weights("best")))
    with torch.no_grad():
        expected_metrics = task.evaluate(model.eval(), "test")
    assert record["metrics"]["test/accuracy"] == expected_metrics["accuracy"]


def test_a_rule_from_outside_the_package_trains(toys: Toys) -> None:
    up, _ = toys.run("rule=toy_opposite", "optimizer.lr=0.05")
    down, _ = toys.run("rule=bp", "optimizer.lr=0.05")
    assert down["metrics"]["test/accuracy"] > 0.4 > 0.2 > up["metrics"]["test/accuracy"]


def test_evaluation_by_epoch(toys: Toys) -> None:
    _, folder = toys.run("trainer.epochs=5", "trainer.evaluate_every=2")
    # The end is evaluated too, although it is no multiple.
    assert [(row["epoch"], row["step"]) for row in folder.history()] == [(2, 10), (4, 20), (5, 25)]


def test_evaluation_by_step(toys: Toys) -> None:
    _, folder = toys.run("trainer.epochs=2", "trainer.evaluate_unit=step", "trainer.evaluate_every=4")
    assert [(row["epoch"], row["step"]) for row in folder.history()] == [(1, 4), (2, 8), (2, 10)]


def test_steps_end_a_run_in_the_middle_of_an_epoch(toys: Toys) -> None:
    record, folder = toys.run("trainer.epochs=100", "trainer.steps=7")
    assert (record["steps"], record["epochs"]) == (7, 1)
    assert [row["step"] for row in folder.history()] == [5, 7]


@pytest.mark.parametrize("unit", ["step", "epoch"])
def test_an_epoch_whose_last_step_is_that_of_the_run_counts(toys: Toys, unit: str) -> None:
    record, folder = toys.run("trainer.epochs=100", "trainer.steps=10", f"trainer.evaluate_unit={unit}")
    assert (record["steps"], record["epochs"]) == (10, 2)
    assert [(row["epoch"], row["step"]) for row in folder.history()][-1] == (2, 10)
    assert len({row["step"] for row in folder.history()}) == len(folder.history())


def test_train_loss_in_the_history_is_the_mean_since_the_last_evaluation(toys: Toys) -> None:
    config = toys.config("optimizer.lr=1e-30")  # weights that do not move: the loss is that of the initial model
    execute(config)
    load_components(config)
    task = build_task(config)
    model = build_model(config, task)
    losses = [task.loss(model, batch).item() for batch in task.train_batches(1)]
    assert RunFolder.of(config).history()[0]["train/loss"] == pytest.approx(sum(losses) / 5, rel=1e-6)


def test_best_and_last_weights_are_selected_as_asked(toys: Toys) -> None:
    common = ["+task.options.worse=true", "trainer.epochs=4", "optimizer.lr=0.05"]  # falls from the first epoch on
    best, folder = toys.run(*common, "trainer.selection=best")
    last, other = toys.run(*common, "trainer.selection=last")
    assert (best["best_epoch"], best["best_step"]) == (1, 5)
    assert best["best_valid"] == max(row["valid/accuracy"] for row in folder.history())
    first_epoch = _bare_loop(toys.config(*common), 1)[0]
    assert _equal(load_file(folder.weights("best")), first_epoch)
    assert not other.weights("best").exists()
    assert _equal(_last(folder), _last(other))
    assert last["metrics"]["test/log_loss"] != best["metrics"]["test/log_loss"]
    # The bare task's own evaluation of those weights, on the test split.
    _, task, model = _bare_loop(toys.config(*common), 4)
    with torch.no_grad():
        assert last["metrics"]["test/log_loss"] == task.evaluate(model.eval(), "test")["log_loss"]
        model.load_state_dict(first_epoch)
        assert best["metrics"]["test/log_loss"] == task.evaluate(model.eval(), "test")["log_loss"]


def test_a_metric_that_should_fall_selects_its_minimum(toys: Toys) -> None:
    record, folder = toys.run("task=toy_loss", "trainer.epochs=5", "optimizer.lr=0.3")
    values = [row["valid/log_loss"] for row in folder.history()]
    assert record["best_valid"] == min(values)
    assert record["best_epoch"] == values.index(min(values)) + 1 < 5
    assert record["metrics"]["valid/log_loss"] == min(values)


@pytest.mark.parametrize("patience", [1, 3])
def test_patience_counts_evaluations_without_improvement(toys: Toys, patience: int) -> None:
    record, folder = toys.run("+task.options.worse=true", "trainer.epochs=9", f"trainer.patience={patience}")
    assert record["epochs"] == len(folder.history()) == 1 + patience


def test_accumulated_batches_equal_one_large_batch(toys: Toys) -> None:
    # 60 samples: batches of 8 in groups of 3 end with a group of 12, as batches of 24 end with one of 12. The last
    # batch of the small kind has 4 samples, whose mean would weigh more than its share, so 6 divides evenly: 6 · 4.
    small, by_parts = toys.run("task.options.batch_size=6", "trainer.accumulate=4", "optimizer.lr=0.05")
    large, at_once = toys.run("task.options.batch_size=24", "optimizer.lr=0.05")
    assert small["steps"] == large["steps"] == 9
    for name, expected in _last(at_once).items():
        torch.testing.assert_close(_last(by_parts)[name], expected, rtol=1e-4, atol=1e-6)


def test_accumulation_of_more_batches_than_an_epoch_has_makes_one_step(toys: Toys) -> None:
    record, folder = toys.run("trainer.accumulate=7", "optimizer.lr=0.05")
    _, at_once = toys.run("task.options.batch_size=60", "optimizer.lr=0.05")
    assert record["steps"] == 3
    for name, expected in _last(at_once).items():
        torch.testing.assert_close(_last(folder)[name], expected, rtol=1e-4, atol=1e-6)


def test_the_recorded_rate_follows_the_schedule(toys: Toys) -> None:
    options = ["schedule=exponential", "schedule.options.factor=0.5", "schedule.options.steps=5", "optimizer.lr=0.08"]
    _, folder = toys.run(*options)
    assert [row["lr"] for row in folder.history()] == pytest.approx([0.04, 0.02, 0.01])


def test_plateau_follows_the_validation_metric(toys: Toys) -> None:
    options = ["schedule=plateau", "schedule.options={factor: 0.1, patience: 1}", "optimizer.lr=0.1"]
    _, folder = toys.run("+task.options.worse=true", "trainer.epochs=5", *options)
    assert [row["lr"] for row in folder.history()] == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001])


@pytest.mark.parametrize("rule", ["bp", "dfa", "shallow"])
def test_bfloat16_computes_in_reduced_precision_and_keeps_weights_whole(toys: Toys, rule: str) -> None:
    record, reduced = toys.run(f"rule={rule}", "trainer.precision=bfloat16", "optimizer.lr=0.05")
    _, full = toys.run(f"rule={rule}", "optimizer.lr=0.05")
    assert record["status"] == "done"
    weights, expected = _last(reduced), _last(full)
    assert all(tensor.dtype == torch.float32 for tensor in weights.values())
    assert not _equal(weights, expected)
    assert reduced.history()[0]["train/loss"] == pytest.approx(full.history()[0]["train/loss"], rel=0.05)


def test_shallow_leaves_what_lies_below_the_points_as_it_was(toys: Toys) -> None:
    config = toys.config("rule=shallow", "optimizer.lr=0.05")
    load_components(config)
    initial = build_model(config, build_task(config)).state_dict()
    execute(config)
    final = _last(RunFolder.of(config))
    changed = {name for name in final if not torch.equal(final[name], initial[name])}
    assert changed == {"output.weight", "output.bias"}


def test_alignment_is_recorded_for_direct_rules_only_and_changes_nothing(toys: Toys) -> None:
    record, folder = toys.run("rule=dfa")
    assert record["metrics"]["alignment/mean"] == record["metrics"]["alignment/blocks.0.act/mean"]
    assert {"alignment/blocks.1.act/std", "norm/blocks.1.act/bp"} <= record["metrics"].keys()
    unmeasured, other = toys.run("task=toy_loss", "rule=dfa")
    assert not [name for name in unmeasured["metrics"] if name.startswith(("alignment", "norm"))]
    assert _equal(_last(folder), _last(other))
    assert not [name for name in toys.run("rule=bp")[0]["metrics"] if name.startswith("alignment")]


def test_alignment_over_training_is_measured_without_a_trace(toys: Toys) -> None:
    """Random numbers, running statistics and so the weights are those of a run that does not look."""
    noisy = ("rule=dfa", "+model.options.dropout=0.3", "+model.options.norm=true")
    record, plain = toys.run(*noisy)
    looked, folder = toys.elsewhere("looked").run(*noisy, "run.alignment=evaluations")
    assert _equal(_last(plain), _last(folder)) and looked["metrics"] == record["metrics"]
    names = {f"alignment/blocks.{index}.act/mean" for index in (0, 1)}
    for row, old in zip(folder.history(), plain.history(), strict=True):
        assert row == old | {name: row[name] for name in names}
    assert {name: folder.history()[-1][name] for name in names} == {name: record["metrics"][name] for name in names}


def test_a_compiled_model_is_trained_through_its_wrapper(toys: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda model, **options: torch._dynamo.optimize("eager")(model))
    _, compiled = toys.run("trainer.compile=true", "rule=dfa")
    _, eager = toys.run("rule=dfa")
    assert _last(compiled).keys() == _last(eager).keys()
    for name, expected in _last(eager).items():
        torch.testing.assert_close(_last(compiled)[name], expected, rtol=1e-4, atol=1e-5)


def test_threads_are_those_asked_for(toys: Toys) -> None:
    assert [toys.run("trainer.steps=1", f"trainer.threads={n}")[0]["threads"] for n in (2, 1)] == [2, 1]
    # All cores, and not what an earlier run in the same process left behind.
    assert toys.run("trainer.steps=1", "trainer.threads=null")[0]["threads"] == execute_module._ALL_THREADS


def test_batches_that_differ_from_the_announced_number_fail_the_run(
    toys: Toys, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = toys.config()
    load_components(config)
    monkeypatch.setattr(type(build_task(config)), "steps_per_epoch", lambda self: 6)
    record: dict[str, Any] = execute(config)
    assert (record["status"], record["reason"]) == (
        "failed",
        "RuntimeError: the task gave 5 batches in an epoch, of 6 that it announced",
    )
