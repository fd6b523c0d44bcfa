"""Optimisers and schedules against their closed forms."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.config import OptimizerConfig, ScheduleConfig
from benchmarks.errors import ConfigError
from benchmarks.run.optim import OPTIMIZERS, after_evaluation, after_step, make_optimizer, make_schedule


def _model() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def _rates(name: str, options: dict[str, Any], steps: int, lr: float = 0.5) -> list[float]:
    optimizer = make_optimizer(OptimizerConfig("sgd", lr=lr), _model())
    schedule = make_schedule(ScheduleConfig(name, options), optimizer, True, planned_steps=steps)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        after_step(schedule)
        after_evaluation(schedule, 0.0) if name != "plateau" else None
    return rates


def test_constant_rate_stays() -> None:
    assert _rates("constant", {}, 5) == [0.5] * 5


def test_exponential_rate_is_the_factor_to_the_share_of_steps() -> None:
    expected = [0.5 * 0.1 ** (step / 4) for step in range(9)]
    assert _rates("exponential", {"factor": 0.1, "steps": 4}, 9) == pytest.approx(expected, rel=1e-12)


def test_noam_rate_rises_to_the_end_of_the_warmup_and_falls_as_the_inverse_root() -> None:
    rates = _rates("noam", {"width": 64, "warmup": 5}, 20, lr=2.0)
    expected = [2.0 / math.sqrt(64) * min(1 / math.sqrt(s), s / 5**1.5) for s in range(1, 21)]
    assert rates == pytest.approx(expected, rel=1e-12)
    assert max(range(20), key=rates.__getitem__) + 1 == 5


def test_one_cycle_climbs_and_descends_by_half_cosines_over_the_whole_run() -> None:
    rates = _rates("one_cycle", {"steps": "run", "warmup_share": 0.25}, 41, lr=2.0)

    def half_cosine(start: float, end: float, share: float) -> float:
        return end + (start - end) * (1 + math.cos(math.pi * share)) / 2

    top = 0.25 * 41 - 1  # in steps from the first
    expected = [half_cosine(2 / 25, 2, step / top) for step in range(10)]
    expected += [half_cosine(2, 2 / 250_000, (step - top) / (40 - top)) for step in range(10, 41)]
    assert rates == pytest.approx(expected, rel=1e-9)


def test_an_option_may_be_the_length_of_the_run() -> None:
    assert _rates("exponential", {"factor": 0.1, "steps": "run"}, 9) == _rates(
        "exponential", {"factor": 0.1, "steps": 9}, 9
    )


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_plateau_falls_after_more_than_patience_evaluations_without_improvement(higher_is_better: bool) -> None:
    optimizer = make_optimizer(OptimizerConfig("sgd", lr=1.0), _model())
    schedule = make_schedule(ScheduleConfig("plateau", {"factor": 0.5, "patience": 1}), optimizer, higher_is_better)
    values = [1.0, 2.0, 2.0, 2.0, 2.0, 2.5, 2.5, 2.5]
    rates = []
    for value in values:
        after_step(schedule)  # must not touch a schedule that follows evaluations
        after_evaluation(schedule, value if higher_is_better else -value)
        rates.append(optimizer.param_groups[0]["lr"])
    # Two bad evaluations in a row are more than the patience of one; a fall starts the count again.
    assert rates == [1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.25]


def test_plateau_counts_the_smallest_improvement() -> None:
    optimizer = make_optimizer(OptimizerConfig("sgd", lr=1.0), _model())
    schedule = make_schedule(ScheduleConfig("plateau", {"factor": 0.5, "patience": 1}), optimizer, True)
    for value in (1.0, 1.0 + 1e-9, 1.0 + 2e-9, 1.0 + 3e-9, 1.0 + 4e-9):
        after_evaluation(schedule, value)
    assert optimizer.param_groups[0]["lr"] == 1.0


def test_weight_decay_falls_on_matching_parameters_only() -> None:
    model = _model()
    config = OptimizerConfig("sgd", lr=0.1, weight_decay=0.2, decay_only=["0.**"])
    optimizer = make_optimizer(config, model)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        shrink = 1 - 0.1 * 0.2 if name.startswith("0.") else 1.0
        torch.testing.assert_close(parameter.detach(), shrink * before[name], rtol=1e-6, atol=0)


def test_frozen_parameters_are_left_out() -> None:
    model = _model()
    model[0].requires_grad_(False)  # type: ignore[index]
    groups = make_optimizer(OptimizerConfig(), model).param_groups
    assert sum(len(group["params"]) for group in groups) == 2


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_every_optimizer_descends_with_options_of_its_own(name: str) -> None:
    options: dict[str, Any] = {"momentum": 0.9} if name == "sgd" else {"betas": [0.5, 0.9]}
    weight = nn.Module()
    weight.weight = nn.Parameter(torch.tensor([2.0]))
    optimizer = make_optimizer(OptimizerConfig(name, lr=0.01, options=options), weight)
    for _ in range(50):
        (weight.weight**2).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert abs(weight.weight.item()) < 1.95


def test_an_optimizer_of_ones_own_is_found_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OPTIMIZERS, "_factories", dict(OPTIMIZERS._factories))

    @OPTIMIZERS.register("halves")
    class Halves(torch.optim.SGD):
        def __init__(self, params: Any, lr: float, share: float = 0.5) -> None:
            super().__init__(params, lr * share)

    optimizer = make_optimizer(OptimizerConfig("halves", lr=0.2, options={"share": 0.25}), _model())
    assert isinstance(optimizer, Halves) and optimizer.param_groups[0]["lr"] == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (OptimizerConfig("adma"), "unknown optimizer 'adma'; known: adam, adamw, radam, sgd"),
        (OptimizerConfig("sgd", options={"betas": [0, 1]}), "optimizer 'sgd' has no option 'betas'; known: dampening"),
        (OptimizerConfig("sgd", options={"nesterov": "yes"}), "option 'nesterov' must be of type bool, got 'yes'"),
        (OptimizerConfig("sgd", options={"lr": 0.1}), "optimizer 'sgd': 'lr' is set elsewhere, not among its options"),
        (OptimizerConfig("sgd", weight_decay=1.0, decay_only=["conv.*"]), "'conv.*' matches no parameter; candidates"),
    ],
)
def test_bad_optimizers_are_named(config: OptimizerConfig, expected: str) -> None:
    with pytest.raises(ConfigError) as raised:
        make_optimizer(config, _model())
    assert expected in str(raised.value)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (ScheduleConfig("cosine"), "unknown schedule 'cosine'; known: constant, exponential, noam, one_cycle, plateau"),
        (ScheduleConfig("noam", {"width": 4}), "missing a required argument: 'warmup'"),
        (ScheduleConfig("noam", {"width": 4, "warmup": 2.5}), "option 'warmup' must be of type int"),
        (ScheduleConfig("constant", {"speed": 1}), "schedule 'constant' has no option 'speed'"),
    ],
)
def test_bad_schedules_are_named(config: ScheduleConfig, expected: str) -> None:
    with pytest.raises(ConfigError) as raised:
        make_schedule(config, make_optimizer(OptimizerConfig(), _model()), True)
    assert expected in str(raised.value)


def test_a_model_without_parameters_cannot_be_trained() -> None:
    with pytest.raises(ConfigError, match="no parameters to train"):
        make_optimizer(OptimizerConfig(), nn.Identity())
