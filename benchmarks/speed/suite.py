"""Time and memory of training steps of all models under every rule, and how soon commands answer; in `results/bench`.

Its parts are `steps`, `rules`, `memory`, `overhead`, `profile`, `pipeline` and `latency`. For numbers worth keeping,
measure on a machine that does nothing else.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.figure import Figure

from benchmarks.errors import ConfigError
from benchmarks.run.build import find_device
from benchmarks.speed.depth import bench_depth
from benchmarks.speed.latency import bench_latency
from benchmarks.speed.overhead import bench_overhead
from benchmarks.speed.profile import bench_profile
from benchmarks.speed.report import (
    Row,
    depth_figure,
    depth_text,
    latency_text,
    overhead_text,
    profile_text,
    steps_figure,
    steps_text,
    write_report,
)
from benchmarks.speed.steps import bench_rules, bench_steps
from benchmarks.speed.workloads import MODES
from benchmarks.utils.machine import commit, device_name
from benchmarks.utils.values import check_known
from dfa import RULES

PARTS = ("steps", "rules", "memory", "overhead", "profile", "pipeline", "latency")


@dataclass(frozen=True)
class Suite:
    """What is measured, and how.

    Attributes:
        parts: of `PARTS`.
        models: entries of `configs/bench/steps.yaml`, or of `pipeline.yaml` for the part `pipeline`; empty: all.
        rules: names of rules, bp first, or of peers, "package.module:function".
        modes: of `MODES`.
        depths: numbers of blocks for the part `memory`; empty: those of `configs/bench/depth.yaml`.
        device: e.g. "cuda".
        threads: of every contestant.
        rounds: turns of every contestant.
        seconds: length of a turn.
        before: checkout of other code, whose commands are timed beside ours.
    """

    parts: Sequence[str] = PARTS
    models: Sequence[str] = ()
    rules: Sequence[str] = ("bp", "dfa", "shallow")
    modes: Sequence[str] = ("eager", "recompute")
    depths: Sequence[str] = ()
    device: str = "cpu"
    threads: int = 1
    rounds: int = 11
    seconds: float = 0.3
    before: Path | None = None

    def __post_init__(self) -> None:
        """Check names and numbers.

        Raises:
            ConfigError: an unknown part, mode or rule, or no number of blocks.
        """
        if not self.parts:
            raise ConfigError(f"--parts names no part; known: {', '.join(PARTS)}")
        for part in self.parts:
            check_known("part", part, PARTS, "--parts: ")
        for mode in self.modes:
            check_known("mode", mode, MODES, "--modes: ")
        unknown = [rule for rule in self.rules if ":" not in rule and rule not in RULES]
        if unknown:
            known = ", ".join(RULES)
            raise ConfigError(f"--rules: unknown rule '{unknown[0]}'; known: {known}, or package.module:function")
        if not all(word.strip().isdecimal() and int(word) for word in self.depths):
            given = ",".join(self.depths)
            raise ConfigError(f"--depths: numbers of blocks, at least 1 and separated by commas, not '{given}'")


def measure(suite: Suite, folder: Path) -> bool:
    """Measure what is asked for and write it to `folder`, part by part.

    Returns:
        Whether all contestants came to an end.

    Raises:
        ConfigError: an unknown model or device.
        ResultsError: the folder cannot be written to.
    """
    device = find_device(suite.device)
    torch.set_num_threads(suite.threads)
    facts = _conditions(device, suite.threads)
    turns = suite.device, suite.threads, suite.rounds, suite.seconds
    failed = False
    if "steps" in suite.parts:
        rows = bench_steps(suite.models, suite.rules, suite.modes, *turns)
        failed = any("failure" in row for row in rows)
        _write(folder, "steps", rows, facts, steps_text, steps_figure)
    if "rules" in suite.parts:
        rows = bench_rules(suite.models, *turns)
        failed |= any("failure" in row for row in rows)
        _write(folder, "rules", rows, facts, steps_text)
    if "memory" in suite.parts:
        rows = bench_depth(device, max(1, suite.rounds // 4), [int(word) for word in suite.depths])
        _write(folder, "memory", rows, facts, depth_text, depth_figure)
    if "overhead" in suite.parts:
        _write(folder, "overhead", bench_overhead(device, 10 * suite.rounds), facts, overhead_text)
    if "profile" in suite.parts:
        _write(folder, "profile", bench_profile(suite.models, device, suite.rounds), facts, profile_text)
    if "pipeline" in suite.parts:
        from benchmarks.speed.pipeline.report import pipeline_figure, pipeline_text
        from benchmarks.speed.pipeline.suite import bench_pipeline

        rows = bench_pipeline(suite.models, suite.threads, suite.rounds) if device.type == "cpu" else []
        _write(folder, "pipeline", rows, facts, pipeline_text, pipeline_figure)
    if "latency" in suite.parts:
        _write(
            folder,
            "latency",
            bench_latency(max(1, suite.rounds // 2), suite.threads, suite.before),
            facts,
            latency_text,
        )
    return not failed


def _conditions(device: torch.device, threads: int) -> Row:
    head, dirty = commit()
    return {
        "device": str(device),
        "hardware": device_name(device),
        "threads": threads,
        "torch": torch.__version__,
        "commit": head + ("+" if dirty else ""),
    }


def _write(
    folder: Path,
    name: str,
    rows: list[Row],
    facts: Row,
    text: Callable[[list[Row]], str],
    figure: Callable[[list[Row]], Figure] | None = None,
) -> None:
    if not rows:
        print(f"\n{name}: none of the models is measured here; earlier files are kept", flush=True)
        return
    rows = [{**row, **facts} for row in rows]
    written = write_report(folder, name, rows, text(rows), figure(rows) if figure else None)
    print(f"\n{text(rows)}\nwritten: {', '.join(map(str, written))}", flush=True)
