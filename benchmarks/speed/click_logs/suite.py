"""Preprocessing and reading of click logs, and training steps at the paper's scale.

Written to `results/bench/recommenders.json` and `.md`; parts that are not measured keep what the file holds. All parts
take about 15 minutes on two free cores.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.errors import ResultsError
from benchmarks.speed.click_logs.engines import bench_engines
from benchmarks.speed.click_logs.logs import bench_logs
from benchmarks.speed.click_logs.report import to_markdown
from benchmarks.speed.click_logs.training import bench_cells, bench_optimizers
from benchmarks.utils.files import write_text
from benchmarks.utils.machine import commit, device_name
from benchmarks.utils.values import check_known

PARTS = ("preprocess", "memory", "engines", "cells", "optimizers")


@dataclass(frozen=True)
class Suite:
    """Sizes and places of the measurements.

    Attributes:
        rows: of the log of the part `preprocess`.
        many: rows of the log of the part `memory`.
        vocabulary: values in each of a log's large fields.
        device: of the part `cells`.
        scratch: folder for logs and caches; None: a temporary one.
    """

    rows: int = 2_000_000
    many: int = 20_000_000
    vocabulary: int = 250_000
    device: str = "cpu"
    scratch: Path | None = None


def measure(parts: Sequence[str], suite: Suite, folder: Path) -> None:
    """Measure parts, save each in `folder` as it ends, and print the report.

    Args:
        parts: of `PARTS`; empty: all.
        suite: sizes and places.
        folder: of the report.

    Raises:
        ConfigError: an unknown part.
        ResultsError: see `save`.
    """
    ways: dict[str, Callable[[], Any]] = {
        "preprocess": lambda: bench_logs(suite.rows, suite.vocabulary, suite.scratch),
        "memory": lambda: bench_logs(suite.many, suite.vocabulary, suite.scratch, torchfm=False),
        "engines": bench_engines,
        "cells": lambda: bench_cells(device=suite.device),
        "optimizers": bench_optimizers,
    }
    for part in parts:
        check_known("part", part, PARTS)
    for part in parts or PARTS:
        save(folder, part, ways[part]())
    print((folder / "recommenders.md").read_text(encoding="utf-8"))


def save(folder: Path, part: str, found: Any) -> None:
    """Store the result of a part in `recommenders.json`, with machine and commit, and rewrite `recommenders.md`.

    Args:
        folder: folder of both files.
        part: one of `PARTS`.
        found: its measurements.

    Raises:
        ResultsError: the JSON file is damaged, or a file cannot be written.
    """
    target = folder / "recommenders.json"
    head, dirty = commit()
    machine = device_name(torch.device("cpu"))
    try:
        content: dict[str, Any] = json.loads(target.read_text(encoding="utf-8")) if target.exists() else {}
        content[part] = {"machine": machine, "commit": head, "git_dirty": dirty, "found": found}
        content = {name: content[name] for name in PARTS if name in content}
        write_text(target, json.dumps(content, indent=1) + "\n")
        write_text(target.with_suffix(".md"), to_markdown(content))
    except ValueError as error:
        raise ResultsError(f"{target} is damaged ({error}); delete it and measure again") from None
    except OSError as error:
        raise ResultsError(f"cannot write {target}: {error.strerror or error}") from None
