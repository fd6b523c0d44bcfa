"""Progress bars, shown on a terminal only: of a run, and of whatever else takes long."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress

from benchmarks.utils.text import duration

_REDRAW_SECONDS = 0.2
_PATIENCE_SECONDS = 2.0

Item = TypeVar("Item")
Result = TypeVar("Result")


def with_bar(function: Callable[[Item], Result], items: Sequence[Item], title: str, shown: bool = True) -> list[Result]:
    """Apply a function to items, one after the other, with a `bar`."""
    results = []
    with bar(title, len(items), shown) as advance:
        for item in items:
            results.append(function(item))
            advance(1)
    return results


@contextmanager
def bar(title: str, total: int | None, shown: bool = True) -> Iterator[Callable[[int], None]]:
    """Show on stderr, once something has taken two seconds, how much of it is done and the time that is left.

    Args:
        title: label before the bar, which is removed at the end; without a terminal there is none.
        total: size of all that is to be done; None where it is not known.
        shown: False for no bar at all.

    Yields:
        A function that is told the size of each part that has been done.
    """
    shown, begun, done = shown and sys.stderr.isatty(), time.monotonic(), 0
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[left]}"))
    drawn: RichProgress | None = None

    def advance(size: int) -> None:
        nonlocal done, drawn
        done += size
        passed = time.monotonic() - begun
        if drawn is None and shown and passed > _PATIENCE_SECONDS:
            drawn = RichProgress(*columns, console=Console(stderr=True), transient=True)
            drawn.add_task(title, total=total, left="")
            drawn.start()
        if drawn is not None:
            left = f"{duration(passed / done * (total - done))} left" if total and done else ""
            drawn.update(drawn.task_ids[0], completed=done, left=left)

    try:
        yield advance
    finally:
        if drawn is not None:
            drawn.stop()


class Progress:
    """Progress bar over training steps, with the latest metrics beside it.

    Args:
        total: number of planned steps.
        title: label before the bar.
        shown: whether to draw it; nothing is drawn unless stderr is a terminal.
    """

    def __init__(self, total: int, title: str, shown: bool) -> None:
        self._next_redraw = 0.0
        self._bar: RichProgress | None = None
        if shown and sys.stderr.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            numbers = (TimeRemainingColumn(), TextColumn("{task.fields[numbers]}"))
            self._bar = RichProgress(*columns, *numbers, console=Console(stderr=True), auto_refresh=False)
            self._task = self._bar.add_task(title, total=total, numbers="")

    def __enter__(self) -> "Progress":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.refresh()
            self._bar.stop()

    def update(self, done: int, numbers: dict[str, float]) -> None:
        """Set the number of steps done; `numbers`, unless empty, replace the metrics shown."""
        if self._bar is None:
            return
        now = time.monotonic()
        if not numbers and now < self._next_redraw:
            return
        self._next_redraw = now + _REDRAW_SECONDS
        self._bar.update(self._task, completed=done)
        if numbers:
            self._bar.update(self._task, numbers="  ".join(f"{name} {value:.4g}" for name, value in numbers.items()))
        self._bar.refresh()
