"""Training segments that do not wait for each other at the same time: in CUDA streams, or in threads on a CPU."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Generic, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


class Streams(Generic[T]):
    """Jobs of a forward and a backward part; forwards run one by one, backwards of up to `count` jobs at once.

    On a CPU every backward runs in a thread of a pool. On a GPU both parts of a job are queued on a CUDA stream, the
    streams taking turns: a forward waits for the one before, and backwards for nothing else. With `count` 1 all runs
    in the calling thread and on its stream.

    Args:
        count: jobs whose backward may be under way at a time.
        device: that the jobs run on.
        done: called with the result of every backward, in the order of the jobs.
    """

    def __init__(self, count: int, device: torch.device, done: Callable[[T], None]) -> None:
        self._done = done
        self._count = count
        self._under_way: deque[Future[T]] = deque()
        on_gpu = device.type == "cuda"
        self._streams = [torch.cuda.Stream(device) for _ in range(count)] if on_gpu and count > 1 else []
        self._pool = ThreadPoolExecutor(count, "segment") if not on_gpu and count > 1 else None
        self._jobs = 0
        self._last_forward: torch.cuda.Event | None = None

    def __enter__(self) -> "Streams[T]":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for all backwards; raise what one of them raised."""
        with ExitStack() as stack:
            if self._pool is not None:
                stack.callback(self._pool.shutdown, cancel_futures=True)
            for stream in self._streams:
                torch.cuda.current_stream(stream.device).wait_stream(stream)
            while self._under_way and error is None:
                self._done(self._under_way.popleft().result())

    @contextmanager
    def job(self, inputs: Iterable[Tensor]) -> Iterator[None]:
        """Run a job, whose forward is the block's code up to `backward`; it reads the tensors `inputs`."""
        while len(self._under_way) >= self._count:  # no more graphs than streams
            self._done(self._under_way.popleft().result())
        if not self._streams:
            yield
            return
        stream = self._streams[self._jobs % self._count]
        self._jobs += 1
        stream.wait_stream(torch.cuda.current_stream(stream.device))
        if self._last_forward is not None:
            stream.wait_event(self._last_forward)
        for tensor in inputs:
            tensor.record_stream(stream)
        with torch.cuda.stream(stream):
            yield

    def backward(self, part: Callable[[], T]) -> None:
        """Run the backward of the current job, or start it."""
        if self._streams:
            self._last_forward = torch.cuda.Event()
            self._last_forward.record()
        if self._pool is None:
            self._done(part())
        else:
            self._under_way.append(self._pool.submit(part))
