"""Requests to stop: a run that trains notes them and stops between two steps; elsewhere they are obeyed at once.

SIGINT (Ctrl-C), SIGTERM, and SIGUSR1 and SIGUSR2, which schedulers send before a time limit, are such requests.
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = tuple(
    signal.Signals[name]
    for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2")
    if name in signal.Signals.__members__  # Windows lacks the last two
)


class Interrupted(BaseException):
    """The process was asked to stop; no error, like KeyboardInterrupt, so that nothing is recorded as failed."""

    def __init__(self, number: int) -> None:
        self.signal = signal.Signals(number)
        super().__init__(self.signal.name)


_received: list[int] = []
_deferring = 0


def received() -> tuple[int, ...]:
    """The signals that asked this process to stop, in their order."""
    return tuple(_received)


def stop_if_asked() -> None:
    """Obey a request that was noted.

    Raises:
        Interrupted: there was one.
    """
    if _received:
        raise Interrupted(_received[0])


@contextmanager
def deferred() -> Iterator[None]:
    """Within, requests are noted only: `received` tells of them, and whoever defers has to `stop_if_asked`."""
    global _deferring
    _deferring += 1
    try:
        yield
    finally:
        _deferring -= 1


@contextmanager
def heeding(insistent: bool = True) -> Iterator[None]:
    """Within, the signals are requests to stop: the first raises `Interrupted`, at once unless it is deferred.

    Args:
        insistent: a second signal ends this process and its workers at once. A worker takes it for the first one
            come twice, by way of its parent, which kills it if need be.
    """
    if threading.current_thread() is not threading.main_thread():  # where Python takes no signals
        yield
        return

    owner = os.getpid()

    def handle(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a helper process that was forked, and ends as if there were no such handler
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        again = bool(_received)
        _received.append(number)
        if again:
            if insistent:
                _end_at_once(number)
        elif not _deferring:
            raise Interrupted(number)
        elif insistent:  # not print, which may be under way in the code that was interrupted
            os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, _NOTED)

    before = {number: signal.signal(number, handle) for number in SIGNALS}
    noted = received()
    _received.clear()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        _received[:] = noted


_NOTED = b"stopping after this step, with a checkpoint; a second signal stops at once\n"


def _end_at_once(number: int) -> None:
    for child in multiprocessing.active_children():
        child.kill()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
