"""A run folder without writing, for all but the first process of a run."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from benchmarks.config import Config
from benchmarks.run.history import Row
from benchmarks.run.record_schema import Record
from benchmarks.run.records import RunFolder


class ReadOnlyRunFolder(RunFolder):
    """A run's folder for a process that must not write to it: what every process calls to write does nothing."""

    @contextmanager
    def locked(self, wait: bool = True) -> Iterator[None]:
        yield

    def begin(self, config: Config) -> None: ...
    def abandon(self) -> None: ...
    def finish(self, record: Record) -> None: ...
    def append_metrics(self, row: Row) -> None: ...
    def rewrite_history(self, rows: Sequence[Row]) -> bool:
        return True

    def save_checkpoint(self, state: dict[str, Any]) -> None: ...
    def save_weights(self, which: str, model: nn.Module) -> None: ...
    def start_over(self) -> None: ...
