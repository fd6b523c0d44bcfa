"""Run records: the truth about a run, on disk."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import torch
import yaml
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import save_model
from torch import nn

from benchmarks.config import Config, identity, to_dict
from benchmarks.errors import ResultsError
from benchmarks.run.checkpoints import State, newest_fitting
from benchmarks.run.history import Row, curve, read_history, shortfall, to_text
from benchmarks.run.record_schema import DAMAGED, Record, read_record
from benchmarks.utils.files import atomic_path, check_regular, write_text

_PATIENCE_SECONDS = 0.25
"""How long a lock is tried before a run counts as held: whoever looks at it (`RunFolder.is_held`) takes it, too."""
_POLL_SECONDS = 0.01


class RunBusy(Exception):
    """Another process is at work on this run."""


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run: config, metrics line by line, checkpoint, weights and, written last, the result.

    Its place follows from the run's identity, so that the same run always finds its own traces.
    """

    path: Path

    @classmethod
    def of(cls, config: Config) -> "RunFolder":
        """The folder of the run that `config` describes."""
        parts = (config.task.name, config.model.name, config.rule.name, f"seed{config.seed}-{identity(config)}")
        return cls(Path(config.run.results_dir, "runs", *parts))

    @property
    def result(self) -> Path:
        return self.path / "result.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint.pt"

    @property
    def previous_checkpoint(self) -> Path:
        """The one before, for when the last cannot be read."""
        return self.path / "checkpoint.previous.pt"

    def weights(self, which: str) -> Path:
        """File of the "best" or "last" weights."""
        return self.path / f"{which}.safetensors"

    @contextmanager
    def locked(self, wait: bool = True) -> Iterator[None]:
        """Hold this run alone; the lock falls with the process that holds it.

        Raises:
            RunBusy: another process holds it, and `wait` is False.
            ResultsError: the folder cannot be made or written.
        """
        lock = FileLock(self.path / ".lock")
        try:
            with self._writing():
                self.path.mkdir(parents=True, exist_ok=True)
                lock.acquire(timeout=-1 if wait else _PATIENCE_SECONDS, poll_interval=_POLL_SECONDS)
        except Timeout:
            raise RunBusy(str(self.path)) from None
        try:
            yield
        finally:
            lock.release()

    def is_held(self) -> bool:
        """Whether a process is at work on this run; nothing is made, but a lock that is free is taken for a moment."""
        lock = self.path / ".lock"
        if not lock.exists():
            return False
        try:
            with FileLock(lock).acquire(timeout=_PATIENCE_SECONDS, poll_interval=_POLL_SECONDS):
                return False
        except Timeout:
            return True
        except OSError:  # a folder that cannot be written to
            return False

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Report a folder that cannot be written; torch and safetensors name a full disk by errors of their own."""
        try:
            yield
        except Timeout:
            raise
        except (OSError, RuntimeError, SafetensorError) as error:
            reason = getattr(error, "strerror", None) or f"is the disk full? ({error})"
            raise ResultsError(f"cannot write to the results folder '{self.path}': {reason}") from error

    def read(self) -> Record | None:
        """The finished run's record, or None; one of status "damaged" where the file is not the record of this run."""
        return read_record(self.result)

    def kept(self, retry: bool) -> Record | None:
        """The record that makes running unnecessary: any, or with `retry` only that of a run that ended well."""
        record = self.read()
        return None if record is None or (retry and record["status"] != "done") else record

    def set_aside(self, record: Record) -> Path:
        """Move a finished run, which was made with other data or other code, to a folder of its own; return that."""
        self._move(self.path, place := self._aside(record.get("inputs")))
        return place

    def bring_back(self, inputs: Mapping[str, Any]) -> Path | None:
        """Put a finished run that was set aside in the place of what is there, if it was made with the inputs given.

        Returns:
            The folder it was in; None where there is no such run, or its weights are gone.
        """
        place = self._aside(inputs)
        if not all((place / name).is_file() for name in (self.result.name, self.weights("last").name)):
            return None
        if (record := self.read()) is not None:
            self.set_aside(record)
        self._move(place, self.path)
        self._forget_checkpoints()
        return place

    def _aside(self, inputs: Any) -> Path:
        """Below `superseded`, beside `runs`, one folder for each state of data and code, by their checksum."""
        made_with = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:8]
        results = self.path.parents[4]
        return results / "superseded" / self.path.relative_to(results / "runs").with_suffix(f".{made_with}")

    def _move(self, source: Path, target: Path) -> None:
        """Move the files of a run, its record last: where it lies tells, after an interrupt, what was under way."""
        with self._writing():
            target.mkdir(parents=True, exist_ok=True)
            for file in sorted(source.iterdir(), key=lambda file: file.name == self.result.name):
                if file.name != ".lock":
                    file.replace(target / file.name)

    def begin(self, config: Config) -> None:
        """Leave the resolved configuration for readers; a record that is damaged moves to `result.damaged-<n>`."""
        with self._writing():
            if (record := self.read()) is not None and record["status"] == DAMAGED:
                places = (self.path / f"result.damaged-{number}" for number in count(1))
                self.result.rename(next(place for place in places if not place.exists()))
            write_text(self.path / "config.yaml", yaml.safe_dump(to_dict(config), sort_keys=False))

    def abandon(self) -> None:
        """Remove the traces of a run that turned out to be impossible; one with a checkpoint or a record keeps them."""
        if self.has_checkpoint or self.result.exists():
            return
        with suppress(OSError):
            for file in self.path.iterdir():
                if not file.name.startswith("result."):  # a damaged record is kept
                    file.unlink()
            for folder in (self.path, *self.path.parents[:4]):  # up to runs/, as far as they are empty
                folder.rmdir()

    def finish(self, record: Record) -> None:
        """Write the record, which marks the run as finished, and drop its checkpoint."""
        with self._writing():
            write_text(self.result, json.dumps(record, indent=1) + "\n")
            self._forget_checkpoints()

    def put_back(self, config: Mapping[str, Any], history: Sequence[Mapping[str, Any]], record: Record) -> None:
        """Write what is kept of a finished run: configuration, history and, last, the record; or nothing of it."""
        try:
            with self._writing():
                write_text(self.path / "config.yaml", yaml.safe_dump(dict(config), sort_keys=False))
                write_text(self.metrics, to_text(history))
            self.finish(record)
        except ResultsError:
            self.abandon()
            raise

    def append_metrics(self, row: Row) -> None:
        """Add a line to the history."""
        with self._writing(), self.metrics.open("a", encoding="utf-8") as history:
            history.write(to_text([row]))

    def history(self) -> list[Row]:
        """All rows of the history.

        Raises:
            ResultsError: it is damaged.
        """
        return read_history(self.metrics)

    def complete_history(self, record: Record) -> list[Row]:
        """All rows of the history of a run with this record.

        Raises:
            ResultsError: it is damaged, or the run is done and its history is missing or ends before the run did.
        """
        rows = self.history()
        if record["status"] == "done" and (fault := shortfall(rows, record["steps"])):
            raise ResultsError(f"the history '{self.metrics}' {fault}")
        return rows

    def curve(self, metric: str) -> dict[int, float]:
        """A metric by step, over the evaluations of a finished run.

        Raises:
            ResultsError: the history is missing, cannot be read, or ends before the run did, as a copy may that was
                made while the run was under way.
        """
        record = self.read()
        return curve(self.metrics, metric, record["steps"] if record and record["status"] == "done" else 0)

    def rewrite_history(self, rows: Sequence[Row]) -> bool:
        """Have the history consist of these rows; what came after a checkpoint will be run again.

        Returns:
            Whether it began with them before.
        """
        text = to_text(rows)
        try:
            check_regular(self.metrics)
            intact = self.metrics.read_bytes().startswith(text.encode())
        except OSError:
            intact = not text
        with self._writing():
            write_text(self.metrics, text)
        return intact

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Atomically replace the checkpoint, which becomes the previous one."""
        with self._writing(), atomic_path(self.checkpoint) as temporary:
            torch.save(state, temporary)
            if self.checkpoint.exists():
                self.checkpoint.replace(self.previous_checkpoint)

    def save_weights(self, which: str, model: nn.Module) -> None:
        """Keep the "best" or "last" weights."""
        with self._writing(), atomic_path(self.weights(which)) as temporary:
            save_model(model, str(temporary))

    def load_checkpoint(self, take_up: Callable[[State], None] = lambda state: None) -> State | None:
        """The last checkpoint that can be read and taken up, on the CPU, or None where there is none.

        If that is the one before the last, the other is dropped, and a line says so.

        Args:
            take_up: has the run go on from a checkpoint; raises if that is not possible.

        Raises:
            ResultsError: there are some, and none fits.
        """
        present = [path for path in (self.checkpoint, self.previous_checkpoint) if path.exists()]
        found = newest_fitting(present, take_up)
        if found is None:
            return None
        path, state = found
        if path != present[0]:
            with self._writing():
                path.replace(self.checkpoint)
        return state

    @property
    def has_checkpoint(self) -> bool:
        """Whether the run can go on from somewhere."""
        return self.checkpoint.exists() or self.previous_checkpoint.exists()

    def progress(self) -> object:
        """Something that changes with every checkpoint; None before the first."""
        try:
            status = self.checkpoint.stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns

    def start_over(self) -> None:
        """Drop the checkpoints."""
        with self._writing():
            self._forget_checkpoints()

    def _forget_checkpoints(self) -> None:
        """Remove the checkpoints, and what processes left behind that were killed while they wrote."""
        for path in (self.checkpoint, self.previous_checkpoint, *self.path.glob(".*.tmp")):
            path.unlink(missing_ok=True)
