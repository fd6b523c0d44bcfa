"""Time of a training step by operator, under backpropagation and under DFA."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.speed.workloads import Step, build_workload, load_settings, make_step
from benchmarks.utils.values import check_known

Row = dict[str, Any]
DEFAULT_MODELS = ("nerf_trunk", "transformer_macro", "gcn")
SHOWN = 10
"""Operators with a row of their own; all others share one row."""


def bench_profile(models: Sequence[str], device: torch.device, steps: int) -> list[Row]:
    """Measure the rows of `profile.json`: self time (ms) and calls per step of each operator.

    Args:
        models: entries of `configs/bench/steps.yaml`; empty for `DEFAULT_MODELS`.
        device: device to run on.
        steps: number of steps to average over. The profiler's overhead is largest for small operators.

    Raises:
        ConfigError: unknown model.
    """
    entries = {entry["name"]: entry for entry in load_settings("steps")}
    rows = []
    for model in models or DEFAULT_MODELS:
        check_known("model of the bench", model, entries)
        workload = {rule: build_workload(entries[model], device) for rule in ("bp", "dfa")}
        taken = {rule: _profiled(make_step(workload[rule], rule, "eager"), steps) for rule in workload}
        names = set().union(*taken.values())
        longest = {name: max(found.get(name, (0.0, 0.0))[0] for found in taken.values()) for name in names}
        operators = sorted(longest, key=longest.__getitem__, reverse=True)
        rows += [
            {"model": model, "operator": operator, **_columns(taken, [operator])} for operator in operators[:SHOWN]
        ]
        rows.append({"model": model, "operator": "others", **_columns(taken, operators[SHOWN:])})
        rows.append({"model": model, "operator": "all", **_columns(taken, operators)})
    return rows


def _profiled(step: Step, steps: int) -> dict[str, tuple[float, float]]:
    """Return operator → (self time in ms, calls) of one step."""
    for _ in range(2):  # the first pass warms up the profiler and is discarded
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            for _ in range(steps):
                step()
    events = profiler.key_averages()
    return {event.key: (event.self_cpu_time_total / 1e3 / steps, event.count / steps) for event in events}


def _columns(taken: dict[str, dict[str, tuple[float, float]]], operators: Sequence[str]) -> Row:
    columns: Row = {}
    for rule, found in taken.items():
        pairs = [found.get(operator, (0.0, 0.0)) for operator in operators]
        columns |= {f"{rule}_ms": sum(ms for ms, _ in pairs), f"{rule}_calls": sum(calls for _, calls in pairs)}
    return columns
