"""A sweep whose processes are killed at random moments has to leave what an undisturbed one leaves, digit for digit.

Workers and the driver, which is then started again, get SIGKILL. Compared are every record, history and weight, and the
table; and no record may be written twice.
"""

import json
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks.errors import ResultsError
from benchmarks.utils.paths import REPOSITORY

_VARYING = ("seconds", "steps_per_second", "peak_memory_mb", "finished")  # of a record
_LOOK_EVERY, _ORPHANS_END_IN = 0.02, 60.0  # seconds


@dataclass
class Disturbance:
    """What was done to a sweep.

    Attributes:
        killed: "driver" or "worker", in their order.
        drivers: how often the sweep was started.
        seconds: from the first start to the end.
        rewritten: results that were written again.
        orphans: processes that were still there long after their driver.
    """

    killed: list[str] = field(default_factory=list)
    drivers: int = 0
    seconds: float = 0.0
    rewritten: list[Path] = field(default_factory=list)
    orphans: int = 0


def disturb(
    command: Sequence[str],
    results: Path,
    kills: int,
    pauses: tuple[float, float],
    chance: random.Random,
    environment: Mapping[str, str] | None = None,
) -> Disturbance:
    """Start a sweep, kill one of its processes after random pauses, start it again when that was its driver.

    Args:
        command: starts the sweep with local workers, and goes on with it when started again.
        results: the folder it writes to.
        kills: so many in all, unless it ends before.
        pauses: the shortest and longest time between two kills, in seconds, not counting what it takes to have workers.
        chance: what draws pauses and victims.
        environment: of the sweep.

    Raises:
        ResultsError: the sweep ended by itself, and not well.
    """
    done, seen, began = Disturbance(), dict[int, psutil.Process](), time.monotonic()
    with _Watch(results) as watch:
        driver = _start(command, environment, done)
        while True:
            left = kills - len(done.killed)
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
    """The next to be killed, None for the driver; each kind has its turn at least once."""
    never = [kind for kind in ("worker", "driver") if kind not in killed]
    if left > len(never) or not workers:
        return chance.choice([None, *workers])
    return chance.choice(workers) if never[0] == "worker" else None


def _workers(driver: int) -> list[psutil.Process]:
    """The driver's worker processes; not the helper that Python starts beside them."""
    found = []
    with suppress(psutil.NoSuchProcess):
        for process in psutil.Process(driver).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if any("spawn_main" in word for word in process.cmdline()):
                    found.append(process)
    return found


def left_over(processes: Iterable[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Which processes are still at work after so many seconds; those that only nobody has buried are not."""
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
    """Looks at the results all the time, since a record that is written twice does not show it afterwards."""

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
    """In what two results folders differ, beyond times and memory; [] if in nothing."""
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
