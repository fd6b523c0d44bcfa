"""Run records: the truth about a run, on disk."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from filelock import FileLock, Timeout

from benchmarks.config import Config, identity, to_dict
from benchmarks.errors import ResultsError
from benchmarks.files import atomic_path, write_text

Record = dict[str, Any]


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
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / ".lock")
            lock.acquire(timeout=-1 if wait else 0)
        except Timeout:
            raise RunBusy(str(self.path)) from None
        except OSError as error:
            raise ResultsError(f"cannot write to the results folder '{self.path}': {_reason(error)}") from None
        try:
            yield
        except OSError as error:
            if error.filename is None or Path(str(error.filename)).is_relative_to(self.path):
                raise ResultsError(f"cannot write to the results folder '{self.path}': {_reason(error)}") from error
            raise
        finally:
            lock.release()

    def read(self) -> Record | None:
        """The finished run's record, or None."""
        return read_record(self.result)

    def begin(self, config: Config) -> None:
        """Leave the resolved configuration for readers."""
        write_text(self.path / "config.yaml", yaml.safe_dump(to_dict(config), sort_keys=False))

    def finish(self, record: Record) -> None:
        """Write the record, which marks the run as finished, and drop its checkpoint."""
        write_text(self.result, json.dumps(record, indent=1, sort_keys=True, allow_nan=True) + "\n")
        self.checkpoint.unlink(missing_ok=True)

    def append_metrics(self, row: dict[str, Any]) -> None:
        """Add a line to the history."""
        with self.metrics.open("a", encoding="utf-8") as history:
            history.write(json.dumps(row) + "\n")

    def history(self) -> list[dict[str, Any]]:
        """All lines of the history."""
        if not self.metrics.exists():
            return []
        return [json.loads(line) for line in self.metrics.read_text(encoding="utf-8").splitlines()]

    def truncate_history(self, rows: int) -> None:
        """Keep the first `rows` lines: what came after the checkpoint will be run again."""
        lines = self.metrics.read_text(encoding="utf-8").splitlines(keepends=True) if self.metrics.exists() else []
        write_text(self.metrics, "".join(lines[:rows]))

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Atomically replace the checkpoint."""
        with atomic_path(self.checkpoint) as temporary:
            torch.save(state, temporary)

    def load_checkpoint(self) -> dict[str, Any] | None:
        """The last checkpoint, on the CPU, or None.

        Raises:
            ResultsError: it cannot be read.
        """
        if not self.checkpoint.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        except Exception as error:
            raise ResultsError(
                f"unreadable checkpoint '{self.checkpoint}' ({error}); delete it to start over"
            ) from None
        return state


def read_record(path: Path) -> Record | None:
    """The record in a file, or None where there is none.

    Raises:
        ResultsError: the file is not a record.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ResultsError(f"unreadable record '{path}': {error}; delete it to run again") from None
    if not isinstance(record, dict) or "status" not in record:
        raise ResultsError(f"unreadable record '{path}': it names no status; delete it to run again")
    return record


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
