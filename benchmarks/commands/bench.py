"""How fast and how lean a training step is under every rule: `make bench`.

Writes steps, rules, memory, overhead and profile as JSON, Markdown and plots to `results/bench`. For numbers worth
keeping, measure on a machine that does nothing else.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure

from benchmarks.errors import ConfigError
from benchmarks.run.build import find_device
from benchmarks.speed.depth import bench_depth
from benchmarks.speed.overhead import bench_overhead
from benchmarks.speed.profile import bench_profile
from benchmarks.speed.report import (
    Row,
    depth_figure,
    depth_text,
    overhead_text,
    profile_text,
    steps_figure,
    steps_text,
    write_report,
)
from benchmarks.speed.steps import bench_rules, bench_steps
from benchmarks.speed.workloads import MODES
from benchmarks.utils.exits import EXIT_DONE, EXIT_RUNS_FAILED, guarded
from benchmarks.utils.machine import commit, device_name
from benchmarks.utils.paths import REPOSITORY
from dfa import RULES

PARTS = ("steps", "rules", "memory", "overhead", "profile")


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `python -m benchmarks bench`."""
    options = make_parser().parse_args(arguments)
    sys.exit(guarded(lambda: bench(options)))


def make_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add("--parts", default=",".join(PARTS), help=f"what to measure: {', '.join(PARTS)} (default: all)")
    add("--models", default="", help="entries of configs/bench/steps.yaml (default: all)")
    add(
        "--rules",
        default="bp,dfa,shallow",
        help="rules, bp first; a peer is package.module:function, "
        "which\ngets a benchmarks.speed.workloads.Workload and returns its training step",
    )
    add("--modes", default="eager,recompute", help=f"of {', '.join(MODES)}")
    add("--device", default="cpu", help="e.g. cuda (default: cpu)")
    add("--threads", type=int, default=1, help="of every candidate (default: 1)")
    add("--rounds", type=int, default=11, help="turns of every candidate (default: 11)")
    add("--seconds", type=float, default=0.3, help="length of a turn (default: 0.3)")
    add("--depths", default="", help="numbers of blocks for the memory part (default: configs/bench/depth.yaml)")
    add(
        "--results",
        default=os.environ.get("DFA_RESULTS_DIR", str(REPOSITORY / "results")),
        help="folder (default: results)",
    )
    return parser


def bench(options: argparse.Namespace) -> int:
    """Measure what is asked for and write it down.

    Raises:
        ConfigError: an unknown part, mode, rule, model or device, or a number out of range.
    """
    parts, modes = _words("parts", options.parts, PARTS), _words("modes", options.modes, MODES)
    rules, depths = _rules(options.rules), _depths(options.depths)
    if options.threads < 1 or options.rounds < 1:
        raise ConfigError("--threads and --rounds must be at least 1")
    device = find_device(options.device)
    torch.set_num_threads(options.threads)
    facts = _surroundings(device, options.threads)
    failed = False
    models = [model for model in options.models.split(",") if model]
    turns = str(device), options.threads, options.rounds, options.seconds
    if "steps" in parts:
        rows = bench_steps(models, rules, modes, *turns)
        failed = any("failure" in row for row in rows)
        _write(options, "steps", rows, facts, steps_text, steps_figure)
    if "rules" in parts:
        rows = bench_rules(models, *turns)
        failed |= any("failure" in row for row in rows)
        _write(options, "rules", rows, facts, steps_text)
    if "memory" in parts:
        _write(
            options, "memory", bench_depth(device, max(1, options.rounds // 4), depths), facts, depth_text, depth_figure
        )
    if "overhead" in parts:
        _write(options, "overhead", bench_overhead(device, 10 * options.rounds), facts, overhead_text)
    if "profile" in parts:
        _write(options, "profile", bench_profile(models, device, options.rounds), facts, profile_text)
    return EXIT_RUNS_FAILED if failed else EXIT_DONE


def _surroundings(device: torch.device, threads: int) -> Row:
    head, dirty = commit()
    return {
        "device": str(device),
        "hardware": device_name(device),
        "threads": threads,
        "torch": torch.__version__,
        "commit": head + ("+" if dirty else ""),
    }


def _write(
    options: argparse.Namespace,
    name: str,
    rows: list[Row],
    facts: Row,
    text: Callable[[list[Row]], str],
    figure: Callable[[list[Row]], Figure] | None = None,
) -> None:
    if not rows:
        print(f"\n{name}: none of the models is measured here; files of an earlier time stay", flush=True)
        return
    rows = [{**row, **facts} for row in rows]
    written = write_report(Path(options.results, "bench"), name, rows, text(rows), figure(rows) if figure else None)
    print(f"\n{text(rows)}\nwritten: {', '.join(map(str, written))}", flush=True)


def _words(option: str, given: str, known: Sequence[str]) -> list[str]:
    words = [word for word in given.split(",") if word]
    for word in words:
        if word not in known:
            raise ConfigError(f"--{option}: unknown '{word}'; known: {', '.join(known)}")
    return words


def _rules(given: str) -> list[str]:
    rules = [rule for rule in given.split(",") if rule]
    for rule in rules:
        if ":" not in rule and rule not in RULES:
            raise ConfigError(f"--rules: unknown '{rule}'; known: {', '.join(RULES)}, or package.module:function")
    return rules


def _depths(given: str) -> list[int]:
    words = [word for word in given.split(",") if word]
    if not all(word.strip().isdecimal() and int(word) for word in words):
        raise ConfigError(f"--depths: numbers of blocks, at least 1 and separated by commas, not '{given}'")
    return [int(word) for word in words]
