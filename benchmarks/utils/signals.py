"""Signals that ask a process to stop: raised at once as `Interrupted`, or deferred to the end of a training step.

Handled are SIGINT (Ctrl-C), SIGTERM, and SIGUSR1 and SIGUSR2, which schedulers send before a time limit.
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
    """Request to stop; a BaseException like KeyboardInterrupt, so that no run is recorded as failed.

    Attributes:
        signal: the signal received.
    """

    def __init__(self, number: int) -> None:
        self.signal = signal.Signals(number)
        super().__init__(self.signal.name)


_received: list[int] = []
_deferring = 0


def received() -> tuple[int, ...]:
    """Return the signals received so far by number, oldest first."""
    return tuple(_received)


def stop_if_asked() -> None:
    """Stop if a deferred signal has arrived.

    Raises:
        Interrupted: a signal was received.
    """
    if _received:
        raise Interrupted(_received[0])


@contextmanager
def deferred() -> Iterator[None]:
    """Record signals without raising inside this block; its owner calls `received` or `stop_if_asked`."""
    global _deferring
    _deferring += 1
    try:
        yield
    finally:
        _deferring -= 1


@contextmanager
def handle_signals(kill_on_second: bool = True) -> Iterator[None]:
    """Turn `SIGNALS` into `Interrupted` inside this block, at once unless `deferred`; a no-op in other threads.

    Args:
        kill_on_second: whether a second signal kills this process and its workers. False in a worker: a signal that
            goes to the whole process group reaches it again through its parent, which kills it where that is needed.
    """
    if threading.current_thread() is not threading.main_thread():  # only that one may set handlers
        yield
        return

    owner = os.getpid()

    def handle(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a forked child inherits this handler; it ends by the default action
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        again = bool(_received)
        _received.append(number)
        if again:
            if kill_on_second:
                _kill_now(number)
        elif not _deferring:
            raise Interrupted(number)
        elif kill_on_second:  # os.write is safe in a handler; print may be running in the interrupted code
            os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, _STOPPING)

    previous = {number: signal.signal(number, handle) for number in SIGNALS}
    pending = received()
    _received.clear()
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        _received[:] = pending


_STOPPING = b"stopping after this step, with a checkpoint; a second signal stops at once\n"


def _kill_now(number: int) -> None:
    for child in multiprocessing.active_children():
        child.kill()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
