"""Optimisers and learning-rate schedules, by name."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

from benchmarks.config import OptimizerConfig, ScheduleConfig
from benchmarks.errors import ConfigError
from dfa.patterns import matches
from dfa.registry import OptionError, Registry, UnknownNameError

OPTIMIZERS: Registry[Callable[..., Optimizer]] = Registry("optimizer")
"""A factory is called with groups of parameters, each with its `weight_decay`, `lr` and the options."""
for _name, _factory in (
    ("adam", torch.optim.Adam),
    ("adamw", torch.optim.AdamW),
    ("radam", torch.optim.RAdam),
    ("sgd", torch.optim.SGD),
):
    OPTIMIZERS.register(_name)(_factory)
_NO_OPTIONS = {"params", "lr", "weight_decay"}  # parameters of PyTorch's optimisers that are set in other places
WHOLE_RUN = "run"
"""Value of a schedule's option that stands for the optimiser steps of the whole run."""
Schedule = LRScheduler | ReduceLROnPlateau
SCHEDULES: Registry[Callable[..., Schedule]] = Registry("schedule")


def make_optimizer(config: OptimizerConfig, model: nn.Module) -> Optimizer:
    """The configured optimiser over all parameters of the model that require a gradient.

    Raises:
        ConfigError: an unknown optimiser, an option of the wrong name or type, or a `decay_only` pattern that matches
            no parameter.
    """
    options: dict[str, Any] = dict(config.options)
    try:
        known = OPTIMIZERS.options(config.name)
        if elsewhere := sorted(_NO_OPTIONS & options.keys()):
            raise OptionError(f"optimizer '{config.name}': '{elsewhere[0]}' is set elsewhere, not among its options")
        if known is not None and "fused" in known and "foreach" not in options:
            options.setdefault("fused", True)
        groups = _parameter_groups(config, model)
        optimizer: Optimizer = OPTIMIZERS.build(config.name, groups, lr=config.lr, **options)
    except (OptionError, UnknownNameError) as error:
        raise ConfigError(str(error)) from None
    return optimizer


def _parameter_groups(config: OptimizerConfig, model: nn.Module) -> list[dict[str, Any]]:
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    if not named:
        raise ConfigError("the model has no parameters to train")
    if config.weight_decay == 0:
        return [{"params": [parameter for _, parameter in named], "weight_decay": 0.0}]
    for pattern in config.decay_only:
        if not any(matches(name, pattern) for name, _ in named):
            names = ", ".join(name for name, _ in named)
            raise ConfigError(f"optimizer.decay_only '{pattern}' matches no parameter; candidates: {names}")
    decayed = [p for name, p in named if any(matches(name, pattern) for pattern in config.decay_only)]
    spared = [p for name, p in named if not any(matches(name, pattern) for pattern in config.decay_only)]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": spared, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


@SCHEDULES.register("constant")
def constant(optimizer: Optimizer, higher_is_better: bool) -> Schedule:
    """The learning rate stays as it is."""
    return LambdaLR(optimizer, lambda step: 1.0)


@SCHEDULES.register("exponential")
def exponential(optimizer: Optimizer, higher_is_better: bool, factor: float, steps: int) -> Schedule:
    """Set the rate to lr · factor^(step / steps)."""
    return LambdaLR(optimizer, lambda step: factor ** (step / steps))


@SCHEDULES.register("noam")
def noam(optimizer: Optimizer, higher_is_better: bool, width: int, warmup: int) -> Schedule:
    """Set the rate to lr · width^-0.5 · min(s^-0.5, s · warmup^-1.5) at step s ≥ 1 (Vaswani et al., 2017)."""
    return LambdaLR(optimizer, lambda step: width**-0.5 * min((step + 1) ** -0.5, (step + 1) * warmup**-1.5))


@SCHEDULES.register("plateau")
def plateau(optimizer: Optimizer, higher_is_better: bool, factor: float, patience: int) -> Schedule:
    """Multiply the rate by `factor` after more than `patience` evaluations without an improvement on validation."""
    return ReduceLROnPlateau(
        optimizer, mode="max" if higher_is_better else "min", factor=factor, patience=patience, threshold=0.0
    )


@SCHEDULES.register("one_cycle")
def one_cycle(optimizer: Optimizer, higher_is_better: bool, steps: int, warmup_share: float) -> Schedule:
    """lr/25 up to lr over `warmup_share` of the steps and down to lr/250,000, both as half a cosine (Smith, 2018)."""
    peak = [float(group["lr"]) for group in optimizer.param_groups]
    return OneCycleLR(optimizer, peak, total_steps=steps, pct_start=warmup_share, cycle_momentum=False)


def make_schedule(
    config: ScheduleConfig, optimizer: Optimizer, higher_is_better: bool, planned_steps: int = 1
) -> Schedule:
    """The configured schedule.

    Args:
        config: its name and options; the value "run" of an option becomes `planned_steps`.
        optimizer: whose learning rate is moved.
        higher_is_better: which way the validation metric improves.
        planned_steps: optimiser steps of the run.

    Raises:
        ConfigError: an option of the wrong name or type.
    """
    options = {key: planned_steps if value == WHOLE_RUN else value for key, value in config.options.items()}
    try:
        schedule: Schedule = SCHEDULES.build(config.name, optimizer, higher_is_better, **options)
    except (OptionError, UnknownNameError) as error:
        raise ConfigError(str(error)) from None
    return schedule


def after_step(schedule: Schedule) -> None:
    """Advance a schedule that follows optimiser steps."""
    if not isinstance(schedule, ReduceLROnPlateau):
        schedule.step()


def after_evaluation(schedule: Schedule, value: float) -> None:
    """Advance a schedule that follows the validation metric."""
    if isinstance(schedule, ReduceLROnPlateau):
        schedule.step(value)
