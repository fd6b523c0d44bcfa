"""Speed and memory of the recommenders family, written to results/bench/recommenders.json and .md.

    python -m benchmarks.speed.click_logs                     # all parts: about 15 minutes on two free cores
    python -m benchmarks.speed.click_logs preprocess          # a log of two million rows, compared with torchfm
    python -m benchmarks.speed.click_logs memory              # a log of twenty million rows; needs 12 GB of disk
    python -m benchmarks.speed.click_logs engines             # parsing and counting with other libraries
    python -m benchmarks.speed.click_logs cells optimizers    # training steps at the paper's scale

Parts that are not named keep their earlier results in the file.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.errors import ResultsError
from benchmarks.speed.click_logs.engines import bench_engines
from benchmarks.speed.click_logs.logs import bench_logs
from benchmarks.speed.click_logs.report import to_markdown
from benchmarks.speed.click_logs.training import bench_cells, bench_optimizers
from benchmarks.utils.exits import EXIT_DONE, guarded
from benchmarks.utils.files import write_text
from benchmarks.utils.machine import commit, device_name

PARTS = ("preprocess", "memory", "engines", "cells", "optimizers")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `python -m benchmarks.speed.click_logs`."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed.click_logs",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("part", nargs="*", help=f"any of: {', '.join(PARTS)} (default: all)")
    parser.add_argument("--rows", type=int, default=2_000_000, help="rows for `preprocess` (default: 2,000,000)")
    parser.add_argument("--many", type=int, default=20_000_000, help="rows for `memory` (default: 20,000,000)")
    parser.add_argument("--vocabulary", type=int, default=250_000, help="values in each of the log's large fields")
    parser.add_argument("--device", default="cpu", help="device of `cells` (default: cpu)")
    parser.add_argument("--scratch", type=Path, default=None, help="folder for logs and caches (default: temporary)")
    parser.add_argument("--results", type=Path, default=Path("results"), help="results folder (default: results)")
    options = parser.parse_args(arguments)
    unknown = set(options.part) - set(PARTS)
    if unknown:
        parser.error(f"unknown part '{min(unknown)}'; known: {', '.join(PARTS)}")
    measurements: dict[str, Callable[[], Any]] = {
        "preprocess": lambda: bench_logs(options.rows, options.vocabulary, options.scratch),
        "memory": lambda: bench_logs(options.many, options.vocabulary, options.scratch, torchfm=False),
        "engines": bench_engines,
        "cells": lambda: bench_cells(device=options.device),
        "optimizers": bench_optimizers,
    }

    def command() -> int:
        for part in options.part or PARTS:
            save(options.results / "bench", part, measurements[part]())
        print((options.results / "bench" / "recommenders.md").read_text(encoding="utf-8"))
        return EXIT_DONE

    sys.exit(guarded(command))


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


if __name__ == "__main__":
    main()
