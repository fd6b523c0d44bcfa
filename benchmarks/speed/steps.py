"""Time, memory and FLOPs of a training step of every model under every rule."""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from statistics import median, quantiles
from typing import Any

from benchmarks.speed.turns import Candidate, Worker, paired_ratios, recording_failure, time_in_turns
from benchmarks.speed.workloads import load_settings
from benchmarks.utils.values import check_known

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
    """Measure the rows of `steps.json`, one per model, rule and mode.

    Ratios are medians over rounds; each compares consecutive turns with bp in the same mode, or in the first mode if
    bp was not measured in that one. A candidate that fails has a row with `failure` and no numbers; the others go on.

    Args:
        models: names of entries in `configs/bench/steps.yaml`; empty for all.
        rules: names of rules, bp first, and of other implementations ("package.module:function", see `make_step`).
        modes: of `workloads.MODES`; "recompute" is measured for dfa on entries that ask for it.
        device: e.g. "cpu".
        threads: of PyTorch in every candidate's process.
        rounds: turns of each candidate.
        seconds: length of a turn; it has at least one step.

    Raises:
        ConfigError: unknown model.
    """
    rows: list[Row] = []
    for entry in _entries(models):
        candidates = [
            Candidate(entry, rule, mode, device, threads)
            for mode in modes
            for rule in rules
            if mode != "recompute" or (rule == "dfa" and entry.get("recompute"))
        ]
        rows += _bench_model(candidates, rounds, seconds)
    return rows


def bench_rules(models: Sequence[str], device: str, threads: int, rounds: int, seconds: float) -> list[Row]:
    """Measure the rows of `rules.json`: models and rules of `configs/bench/rules.yaml` in eager mode, as `bench_steps`.

    Args:
        models: entries of `configs/bench/steps.yaml`; those that `rules.yaml` lacks are left out; empty for all.
        device, threads, rounds, seconds: see `bench_steps`.

    Raises:
        ConfigError: an unknown model.
    """
    _entries(models)  # refuses unknown names
    rules_of: dict[str, list[str]] = load_settings("rules")
    rows: list[Row] = []
    for name, rules in rules_of.items():
        if not models or name in models:
            rows += bench_steps([name], rules, ["eager"], device, threads, rounds, seconds)
    return rows


def _entries(models: Sequence[str]) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = load_settings("steps")
    known = [entry["name"] for entry in entries]
    for name in models:
        check_known("model of the bench", name, known)
    return [entry for entry in entries if not models or entry["name"] in models]


def _bench_model(candidates: Sequence[Candidate], rounds: int, seconds: float) -> list[Row]:
    failures: dict[int, str] = {}
    with ExitStack() as stack:
        workers: dict[int, Worker] = {}
        for index, candidate in enumerate(candidates):
            with recording_failure(index, failures):
                workers[index] = stack.enter_context(Worker(candidate))
        timings = time_in_turns(workers, rounds, seconds, failures)
        facts: dict[int, dict[str, float]] = {}
        for index in timings:
            with recording_failure(index, failures):
                facts[index] = workers[index].resources()
    rows = []
    for index, candidate in enumerate(candidates):
        row = _description(candidate)
        if index in failures:
            rows.append({**row, "failure": failures[index]})
            continue
        own, reference = timings[index], _reference(index, candidates, facts)
        row |= {
            "median_ms": 1e3 * median(timing.wall for timing in own),
            "median_cpu_ms": 1e3 * median(timing.cpu for timing in own),
            "ratio_to_bp": None,
            "cpu_ratio_to_bp": None,
            "peak_mb": facts[index]["peak_mb"],
            "gflop": facts[index]["flops"] / 1e9 or None,
            "flop_ratio": None,
        }
        if reference is not None:
            ratios = paired_ratios(own, timings[reference], lambda timing: timing.wall)
            row["ratio_to_bp"] = median(ratios)
            row["ratio_quartiles"] = quantiles(ratios)[::2] if len(ratios) > 1 else ratios * 2
            row["cpu_ratio_to_bp"] = median(paired_ratios(own, timings[reference], lambda timing: timing.cpu))
            if facts[reference]["flops"] and facts[index]["flops"]:
                row["flop_ratio"] = facts[index]["flops"] / facts[reference]["flops"]
        rows.append(row)
    return rows


def _reference(index: int, candidates: Sequence[Candidate], present: Iterable[int]) -> int | None:
    """Return the index of the bp candidate to compare with: in the same mode, or else the first; None without one."""
    bp = [other for other in present if candidates[other].rule == "bp"]
    same = [other for other in bp if candidates[other].mode == candidates[index].mode]
    return next(iter([*same, *bp]), None)


def _description(candidate: Candidate) -> Row:
    entry = candidate.entry
    return {"model": entry["name"], "size": entry["size"], "rule": candidate.rule, "mode": candidate.mode}
