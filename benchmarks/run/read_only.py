"""A run folder without writing, for all but the first process of a run."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from benchmarks.config import Config
from benchmarks.run.records import Record, RunFolder


class ReadOnlyRunFolder(RunFolder):
    """A run's folder for a process that must not write to it: every writing method does nothing."""

    @contextmanager
    def locked(self, wait: bool = True) -> Iterator[None]:
        yield

    def begin(self, config: Config) -> None: ...
    def abandon(self) -> None: ...
    def finish(self, record: Record) -> None: ...
    def append_metrics(self, row: dict[str, Any]) -> None: ...
    def truncate_history(self, rows: int) -> None: ...
    def save_checkpoint(self, state: dict[str, Any]) -> None: ...
    def save_weights(self, which: str, model: nn.Module) -> None: ...
    def start_over(self) -> None: ...
