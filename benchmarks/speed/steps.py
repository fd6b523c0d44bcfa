"""One training step of every model under every rule, side by side."""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from statistics import median, quantiles
from typing import Any

from benchmarks.errors import ConfigError
from benchmarks.speed.turns import Contestant, Seat, excused, paired_ratios, take_turns
from benchmarks.speed.workloads import load_settings

Row = dict[str, Any]


def bench_steps(
    models: Sequence[str],
    rules: Sequence[str],
    modes: Sequence[str],
    device: str,
    threads: int,
    rounds: int,
    seconds: float,
) -> list[Row]:
    """Rows of `steps.json`, one per model, rule and mode.

    Ratios are medians over rounds, each round comparing turns that were taken one after the other; to bp in the same
    mode, or else in the first one. A contestant that fails, at whatever point, has a row with `failure` and no numbers;
    the others go on.

    Args:
        models: names of entries in `configs/bench/steps.yaml`; empty: all.
        rules: names of rules, bp first, and of peers ("package.module:function").
        modes: of `bench_workloads.MODES`; "recompute" is measured for dfa on entries that ask for it.
        device: e.g. "cpu".
        threads: of every contestant.
        rounds: turns of everyone.
        seconds: length of a turn; it has at least one step.

    Raises:
        ConfigError: an unknown model.
    """
    rows: list[Row] = []
    for entry in _chosen(models):
        contestants = [
            Contestant(entry, rule, mode, device, threads)
            for mode in modes
            for rule in rules
            if mode != "recompute" or (rule == "dfa" and entry.get("recompute"))
        ]
        rows += _bench_model(contestants, rounds, seconds)
    return rows


def bench_rules(models: Sequence[str], device: str, threads: int, rounds: int, seconds: float) -> list[Row]:
    """Rows of `rules.json`, like those of `bench_steps`: the models and rules of `configs/bench/rules.yaml`, eager.

    Args:
        models: entries of `configs/bench/steps.yaml`, of which those of that file count; empty: all.
        device, threads, rounds, seconds: see `bench_steps`.

    Raises:
        ConfigError: an unknown model.
    """
    _chosen(models)
    rules_of: dict[str, list[str]] = load_settings("rules")
    rows: list[Row] = []
    for name, rules in rules_of.items():
        if not models or name in models:
            rows += bench_steps([name], rules, ["eager"], device, threads, rounds, seconds)
    return rows


def _chosen(models: Sequence[str]) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = load_settings("steps")
    known = [entry["name"] for entry in entries]
    if unknown := [name for name in models if name not in known]:
        raise ConfigError(f"unknown model(s) {', '.join(unknown)} in the bench; known: {', '.join(known)}")
    return [entry for entry in entries if not models or entry["name"] in models]


def _bench_model(contestants: Sequence[Contestant], rounds: int, seconds: float) -> list[Row]:
    failures: dict[int, str] = {}
    with ExitStack() as stack:
        seats: dict[int, Seat] = {}
        for index, contestant in enumerate(contestants):
            with excused(index, failures):
                seats[index] = stack.enter_context(Seat(contestant))
        turns = take_turns(seats, rounds, seconds, failures)
        facts: dict[int, dict[str, float]] = {}
        for index in turns:
            with excused(index, failures):
                facts[index] = seats[index].facts()
    rows = []
    for index, contestant in enumerate(contestants):
        row = _description(contestant)
        if index in failures:
            rows.append({**row, "failure": failures[index]})
            continue
        mine, reference = turns[index], _reference(index, contestants, facts)
        row |= {
            "median_ms": 1e3 * median(turn.clock for turn in mine),
            "median_cpu_ms": 1e3 * median(turn.processor for turn in mine),
            "ratio_to_bp": None,
            "cpu_ratio_to_bp": None,
            "peak_mb": facts[index]["peak_mb"],
            "gflop": facts[index]["flops"] / 1e9 or None,
            "flop_ratio": None,
        }
        if reference is not None:
            ratios = paired_ratios(mine, turns[reference], lambda turn: turn.clock)
            row["ratio_to_bp"] = median(ratios)
            row["ratio_quartiles"] = quantiles(ratios)[::2] if len(ratios) > 1 else ratios * 2
            row["cpu_ratio_to_bp"] = median(paired_ratios(mine, turns[reference], lambda turn: turn.processor))
            if facts[reference]["flops"] and facts[index]["flops"]:
                row["flop_ratio"] = facts[index]["flops"] / facts[reference]["flops"]
        rows.append(row)
    return rows


def _reference(index: int, contestants: Sequence[Contestant], present: Iterable[int]) -> int | None:
    """Where backpropagation sits that this one is compared with: in the same mode, or else in the first."""
    candidates = [other for other in present if contestants[other].rule == "bp"]
    same = [other for other in candidates if contestants[other].mode == contestants[index].mode]
    return next(iter([*same, *candidates]), None)


def _description(contestant: Contestant) -> Row:
    entry = contestant.entry
    return {"model": entry["name"], "size": entry["size"], "rule": contestant.rule, "mode": contestant.mode}
