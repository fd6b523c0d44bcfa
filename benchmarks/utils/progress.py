"""Progress bar of a run, shown on a terminal only."""

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

_REDRAW_SECONDS = 0.2


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
