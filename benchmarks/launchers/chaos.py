"""Comparison of a sweep whose processes are killed at random moments with an undisturbed one.

Workers and the driver, which is then started again, get SIGKILL. Compared are every record, history and weight, and the
table; and no record may be written twice.
"""

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks.errors import ResultsError
from benchmarks.launchers.damage import damage_a_history
from benchmarks.utils.paths import REPOSITORY

_VARYING = ("seconds", "steps_per_second", "peak_memory_mb", "finished")  # of a record
_LOOK_EVERY, _ORPHANS_END_IN = 0.02, 60.0  # seconds


@dataclass
class Disturbance:
    """Record of what was done to a sweep.

    Attributes:
        killed: "driver" or "worker", in their order.
        drivers: how often the sweep was started.
        damaged: histories that were damaged, in their order.
        seconds: from the first start to the end.
        rewritten: results that were written again.
        orphans: processes that were still there long after their driver.
    """

    killed: list[str] = field(default_factory=list)
    damaged: list[Path] = field(default_factory=list)
    drivers: int = 0
    seconds: float = 0.0
    rewritten: list[Path] = field(default_factory=list)
    orphans: int = 0


def compare_sweeps(
    table: str, scale: str, seeds: int, kills: int, pauses: tuple[float, float], seed: int, damage: bool = False
) -> list[str]:
    """Make a table undisturbed and disturbed, each in a folder of its own, and print what was done.

    Args:
        table: whose runs, with two workers.
        scale: of the runs.
        seeds: per cell.
        kills: processes to kill.
        pauses: the shortest and longest time between two kills, in seconds.
        seed: of the random moments and victims.
        damage: see `disturb`.

    Returns:
        A line for every difference and every other fault.

    Raises:
        ResultsError: a sweep ended by itself, and not well.
    """
    sweep = [sys.executable, "-m", "benchmarks", "reproduce", table, "--scale", scale, "--seeds", str(seeds)]
    sweep += ["--jobs", "2", "--set", "run.wandb=disabled", "--set", "run.checkpoint_seconds=0"]
    with tempfile.TemporaryDirectory() as folder:
        quiet, disturbed = Path(folder, "quiet"), Path(folder, "disturbed")
        began = time.monotonic()
        undisturbed([*sweep, "--results", str(quiet)])
        runs = len(list(quiet.glob("runs/*/*/*/*/result.json")))
        print(f"undisturbed: {runs} runs in {time.monotonic() - began:.0f} s", flush=True)
        done = disturb(
            [*sweep, "--results", str(disturbed)], disturbed, kills, pauses, random.Random(seed), damage=damage
        )
        found = differences(quiet, disturbed)
    print(
        f"disturbed: {done.killed.count('worker')} workers and {done.killed.count('driver')} drivers killed, "
        f"{len(done.damaged)} histories damaged, "
        f"{done.seconds:.0f} s; {len(found)} differences, {len(done.rewritten)} records written twice, "
        f"{done.orphans} processes left over"
    )
    faults = [*found, *(f"{path}: written twice" for path in done.rewritten)]
    if done.orphans:
        faults.append(f"{done.orphans} processes left over")
    if len(done.killed) != kills:
        faults.append(f"the sweep ended after {len(done.killed)} of {kills} kills: use more seeds or shorter pauses")
    return faults


def disturb(
    command: Sequence[str],
    results: Path,
    kills: int,
    pauses: tuple[float, float],
    chance: random.Random,
    environment: Mapping[str, str] | None = None,
    damage: bool = False,
) -> Disturbance:
    """Start a sweep, kill one of its processes after random pauses, start it again when that was its driver.

    Args:
        command: starts the sweep with local workers, and goes on with it when started again.
        results: the folder it writes to.
        kills: so many in all, unless it ends before.
        pauses: the shortest and longest time between two kills, in seconds, not counting what it takes to have workers.
        chance: what draws pauses and victims.
        environment: of the sweep.
        damage: after each kill, damage the history of a run that can go on, if there is one.

    Raises:
        ResultsError: the sweep ended by itself, and not well.
    """
    done, seen, began = Disturbance(), dict[int, psutil.Process](), time.monotonic()
    kills_seen = 0
    with _Watch(results) as watch:
        driver = _start(command, environment, done)
        while True:
            left = kills - len(done.killed)
            if damage and len(done.killed) > kills_seen:
                kills_seen = len(done.killed)
                if (damaged := damage_a_history(results, chance)) is not None:
                    done.damaged.append(damaged)
            if left:
                _await_workers(driver)
            try:
                code = driver.wait(chance.uniform(*pauses) if left else None)
            except subprocess.TimeoutExpired:
                workers = _workers(driver.pid)
                seen |= {worker.pid: worker for worker in workers}
                victim = _choose(workers, done.killed, left, chance)
                if victim is not None:
                    with suppress(psutil.NoSuchProcess):
                        victim.kill()
                        done.killed.append("worker")
                    continue
                driver.kill()
                if driver.wait() == -signal.SIGKILL:  # it had not just ended by itself
                    done.killed.append("driver")
                    driver = _start(command, environment, done)
                continue
            if code != 0:
                raise ResultsError(f"the sweep ended with code {code}: {' '.join(command)}")
            break
        done.seconds = time.monotonic() - began
        done.orphans = len(left_over(seen.values(), _ORPHANS_END_IN))
    done.rewritten = watch.rewritten
    return done


def undisturbed(command: Sequence[str]) -> None:
    """Let a sweep run to its end.

    Raises:
        ResultsError: it did not end well; with the last that it said.
    """
    ended = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if ended.returncode:
        told = ended.stderr.strip().splitlines() or ["it does not say why"]
        raise ResultsError(f"the sweep ended with code {ended.returncode}: {told[-1].removeprefix('error: ')}")


def _start(
    command: Sequence[str], environment: Mapping[str, str] | None, done: Disturbance
) -> "subprocess.Popen[bytes]":
    done.drivers += 1
    return subprocess.Popen(command, cwd=REPOSITORY, env=dict(environment or os.environ), stdout=subprocess.DEVNULL)


def _await_workers(driver: "subprocess.Popen[bytes]") -> None:
    while driver.poll() is None and not _workers(driver.pid):
        time.sleep(_LOOK_EVERY)


def _choose(
    workers: Sequence[psutil.Process], killed: Sequence[str], left: int, chance: random.Random
) -> psutil.Process | None:
    """Draw the process to kill next, None for the driver; each kind is drawn at least once."""
    never = [kind for kind in ("worker", "driver") if kind not in killed]
    if left > len(never) or not workers:
        return chance.choice([None, *workers])
    return chance.choice(workers) if never[0] == "worker" else None


def _workers(driver: int) -> list[psutil.Process]:
    """List the driver's worker processes, without the helper that Python starts beside them."""
    found = []
    with suppress(psutil.NoSuchProcess):
        for process in psutil.Process(driver).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if any("spawn_main" in word for word in process.cmdline()):
                    found.append(process)
    return found


def left_over(processes: Iterable[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Return the processes that still run after so many seconds. Zombie processes are excluded."""
    left, began = list(processes), time.monotonic()
    while True:
        left = [process for process in left if _at_work(process)]
        if not left or time.monotonic() - began > seconds:
            return left
        time.sleep(0.1)


def _at_work(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class _Watch:
    """Thread that watches the results, since a record does not show afterwards that it was written twice."""

    def __init__(self, results: Path) -> None:
        self.rewritten: list[Path] = []
        self._results = results
        self._written: dict[Path, tuple[int, int]] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "_Watch":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(_LOOK_EVERY):
            for path in self._results.glob("runs/*/*/*/*/result.json"):
                status = path.stat()
                written = (status.st_ino, status.st_mtime_ns)
                if self._written.setdefault(path, written) != written:
                    self.rewritten.append(path)
                    self._written[path] = written


def differences(one: Path, other: Path) -> list[str]:
    """List the differences between two results folders, apart from times and memory."""
    found = []
    names = sorted(
        {path.relative_to(base).parent for base in (one, other) for path in base.glob("runs/*/*/*/*/*.json")}
    )
    for name in names:
        if _record(one / name) != _record(other / name):
            found.append(f"{name}: record")
        for kind in ("metrics.jsonl", "best.safetensors", "last.safetensors"):
            if _content(one / name / kind) != _content(other / name / kind):
                found.append(f"{name}: {kind}")
    for table in sorted({path.name for base in (one, other) for path in base.glob("tables/*.md")}):
        if _rows(one / "tables" / table) != _rows(other / "tables" / table):
            found.append(f"{table}: rows")
    return found


def _record(folder: Path) -> dict[str, Any]:
    content = _content(folder / "result.json")
    return {key: value for key, value in json.loads(content or b"{}").items() if key not in _VARYING}


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _rows(table: Path) -> list[str]:
    return [line for line in (_content(table) or b"").decode().splitlines() if line.startswith("|")]
