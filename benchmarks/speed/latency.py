"""How soon commands answer: from the start of their process to the end, or to the first step of a training."""

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.errors import ConfigError, SuiteError
from benchmarks.utils.paths import REPOSITORY

Row = dict[str, Any]

_TO_THE_FIRST_STEP = (
    "import os\n"
    "from torch.optim.optimizer import register_optimizer_step_post_hook\n"
    "from benchmarks.__main__ import main\n"
    "register_optimizer_step_post_hook(lambda *_: os._exit(0))\n"
    "main()\n"
    "raise SystemExit('no step was taken')"
)
_ON_SYNTHETIC_DATA = "scale=smoke task.source=stand_in launcher=serial run.wandb=disabled run.progress=false"


@dataclass(frozen=True)
class Command:
    """Command that is timed.

    Attributes:
        line: what stands after `python -m benchmarks`.
        goal: seconds within which it should answer on two cores that do nothing else.
        first_step: timed to the first step of its training.
    """

    line: str
    goal: float
    first_step: bool = False

    @property
    def words(self) -> list[str]:
        """Return the arguments of the Python interpreter."""
        start = ["-c", _TO_THE_FIRST_STEP] if self.first_step else ["-m", "benchmarks"]
        settings = _ON_SYNTHETIC_DATA.split() if self.first_step else []
        return [sys.executable, *start, *self.line.split(), *settings]


COMMANDS = (
    Command("--help", 1),
    *(
        Command(f"train {choice} rule=dfa", 4, first_step=True)
        for choice in ("task=cora model=gcn", "task=criteo model=dcn", "task=wikitext2 model=transformer_macro")
    ),
    *(Command(f"reproduce {table} --dry", 3) for table in ("table_3", "table_6")),
    Command("status", 8),
)


def bench_latency(rounds: int, threads: int, before: Path | None = None) -> list[Row]:
    """Time `COMMANDS` with an empty results folder, each in turn with the same command of other code.

    Args:
        rounds: how often each is timed, after once with an empty cache folder.
        threads: of each process.
        before: checkout of other code to compare with.

    Returns:
        A row for each command: `goal_seconds`, `first_seconds` (with an empty cache folder), `median_seconds`,
        `fastest_seconds` and the median of processor time, `cpu_seconds`; the last three of the other code with
        `before_` in front.

    Raises:
        ConfigError: `before` is no checkout.
        SuiteError: a command fails.
    """
    if before is not None and not (before / "benchmarks" / "__main__.py").is_file():
        raise ConfigError(f"--before: '{before}' is no checkout of this project")
    folders = {"": REPOSITORY, **({"before_": before.resolve()} if before is not None else {})}
    rows: list[Row] = []
    for command in COMMANDS:
        print(f"timing {command.line}", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix="latency-") as scratch:
            timed: dict[str, list[tuple[float, float]]] = {name: [] for name in folders}
            first, _ = _time(command, REPOSITORY, Path(scratch), threads)
            for _ in range(rounds):
                for name, folder in folders.items():
                    timed[name].append(_time(command, folder, Path(scratch, name), threads))
        row: Row = {"command": command.line, "first_step": command.first_step, "goal_seconds": command.goal}
        for name, timings in timed.items():
            row |= {f"{name}{key}": value for key, value in _summary(timings).items()}
        rows.append(row | {"first_seconds": first, "rounds": rounds, "load": os.getloadavg()[0]})
    return rows


def _summary(timings: Sequence[tuple[float, float]]) -> Row:
    return {
        "median_seconds": median(seconds for seconds, _ in timings),
        "fastest_seconds": min(seconds for seconds, _ in timings),
        "cpu_seconds": median(cpu for _, cpu in timings),
    }


def _time(command: Command, folder: Path, scratch: Path, threads: int) -> tuple[float, float]:
    """Return the seconds that a command of the code in `folder` takes, and those of processor time.

    Its results folder is empty but in the same place each time, on which what is kept in the cache folder depends.
    """
    results, cache = scratch / "results", scratch / "cache"
    shutil.rmtree(results, ignore_errors=True)
    results.mkdir(parents=True)
    places = {"PYTHONPATH": str(folder), "DFA_RESULTS_DIR": str(results), "DFA_CACHE_DIR": str(cache)}
    environment = {**os.environ, **places, "OMP_NUM_THREADS": str(threads)}
    used, begun = _processor_seconds(), time.perf_counter()
    ended = subprocess.run(command.words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    passed = time.perf_counter() - begun
    if ended.returncode != 0:
        reason = (ended.stderr.strip().splitlines() or ["no message"])[-1]
        raise SuiteError(f"python -m benchmarks {command.line} of '{folder}' fails: {reason}")
    return passed, _processor_seconds() - used


def _processor_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
