"""Where the time of a training step goes, operator by operator, under backpropagation and under DFA."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.errors import ConfigError
from benchmarks.speed.workloads import Step, build_workload, load_settings, make_step

Row = dict[str, Any]
USUAL = ("nerf_trunk", "transformer_macro", "gcn")
SHOWN = 10
"""Operators to tell apart; the rest of a step is one row."""


def bench_profile(models: Sequence[str], device: torch.device, steps: int) -> list[Row]:
    """Rows of `profile.json`: milliseconds of a step that an operator itself takes, and its calls.

    Args:
        models: entries of `configs/bench/steps.yaml`; none: `USUAL`.
        device: where to run.
        steps: to average over. The profiler itself takes time, most where operators are small.

    Raises:
        ConfigError: an unknown model.
    """
    entries = {entry["name"]: entry for entry in load_settings("steps")}
    rows = []
    for model in models or USUAL:
        if model not in entries:
            raise ConfigError(f"unknown model {model} in the bench; known: {', '.join(entries)}")
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
    """By operator: milliseconds of its own and calls, of one step."""
    for _ in range(2):  # what the first gives is left out: the profiler, too, has to warm up
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
