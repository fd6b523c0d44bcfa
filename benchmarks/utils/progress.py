"""Progress bars, shown on a terminal only: of a run, and of whatever else takes long."""

import sys
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from benchmarks.utils.text import duration

_REDRAW_SECONDS = 0.2
_PATIENCE_SECONDS = 2.0

Item = TypeVar("Item")
Result = TypeVar("Result")


def with_bar(function: Callable[[Item], Result], items: Sequence[Item], title: str) -> list[Result]:
    """Apply a function to items; once that has taken two seconds, a bar on stderr shows the time that is left.

    Args:
        function: to apply to each item.
        items: in this order.
        title: label before the bar, which is removed at the end; without a terminal there is none.
    """
    shown, begun, bar, results = sys.stderr.isatty(), time.monotonic(), None, []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[left]}"))
    try:
        for done, item in enumerate(items, 1):
            results.append(function(item))
            passed = time.monotonic() - begun
            if bar is None and shown and passed > _PATIENCE_SECONDS:
                bar = RichProgress(*columns, console=Console(stderr=True), transient=True)
                task = bar.add_task(title, total=len(items), left="")
                bar.start()
            if bar is not None:
                left = passed / done * (len(items) - done)
                bar.update(task, completed=done, left=f"{duration(left)} left")
    finally:
        if bar is not None:
            bar.stop()
    return results


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
