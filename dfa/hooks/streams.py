"""Lanes: where stages that do not wait for each other are worked on at the same time."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Generic, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


class Lanes(Generic[T]):
    """Jobs in two parts: the first parts run one after the other, the second parts of up to `count` jobs at once.

    On a CPU every second part runs in a thread of a pool. On a GPU both parts of a job are queued on a CUDA stream, the
    streams taking turns: a first part waits for the one before, and second parts for nothing else. With `count` 1 all
    is done on the spot.

    Args:
        count: of jobs whose second part is under way.
        device: that the jobs run on.
        done: called with the result of every job, in their order.
    """

    def __init__(self, count: int, device: torch.device, done: Callable[[T], None]) -> None:
        self._done = done
        self._count = count
        self._under_way: deque[Future[T]] = deque()
        on_gpu = device.type == "cuda"
        self._streams = [torch.cuda.Stream(device) for _ in range(count)] if on_gpu and count > 1 else []
        self._pool = ThreadPoolExecutor(count, "stage") if not on_gpu and count > 1 else None
        self._turn = 0
        self._before: torch.cuda.Event | None = None

    def __enter__(self) -> "Lanes[T]":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for all second parts; raise what one of them raised."""
        with ExitStack() as stack:
            if self._pool is not None:
                stack.callback(self._pool.shutdown, cancel_futures=True)
            for stream in self._streams:
                torch.cuda.current_stream(stream.device).wait_stream(stream)
            while self._under_way and error is None:
                self._done(self._under_way.popleft().result())

    @contextmanager
    def job(self, borrowed: Iterable[Tensor]) -> Iterator[None]:
        """Both parts of a job, which reads the tensors `borrowed` from what ran before."""
        while len(self._under_way) >= self._count:  # no graph beyond what there are lanes for
            self._done(self._under_way.popleft().result())
        if not self._streams:
            yield
            return
        stream = self._streams[self._turn % self._count]
        self._turn += 1
        stream.wait_stream(torch.cuda.current_stream(stream.device))
        if self._before is not None:
            stream.wait_event(self._before)
        for tensor in borrowed:
            tensor.record_stream(stream)
        with torch.cuda.stream(stream):
            yield

    def second(self, part: Callable[[], T]) -> None:
        """The second part of the job that is going on."""
        if self._streams:
            self._before = torch.cuda.Event()
            self._before.record()
        if self._pool is None:
            self._done(part())
        else:
            self._under_way.append(self._pool.submit(part))
