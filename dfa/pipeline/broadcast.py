"""The error of a micro-batch on its way from the last stage to all others, and what a rule sends on to neighbours."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import Tensor, distributed
from torch.distributed import ProcessGroup, Work

from dfa.errors import PipelineError, first_line
from dfa.hooks.points import Point
from dfa.pipeline.signals import shape_only


class ErrorBroadcast:
    """Sends the errors of micro-batches from the last stage to all others, and signals from stage to stage.

    On a process group of its own.

    Args:
        group: of the stages.
        stage: number of this one, which is its rank in the group.
        stages: how many there are.
        device: of the errors.
        timeout: how long to wait for an error; None: as the group does.

    Attributes:
        shapes: of the points of every stage, from the first step on.
    """

    def __init__(
        self, group: ProcessGroup, stage: int, stages: int, device: torch.device, timeout: timedelta | None = None
    ) -> None:
        ranks = distributed.get_process_group_ranks(group)
        self._group = distributed.new_group(ranks, timeout=timeout, use_local_synchronization=True)
        self._source = ranks[-1]
        self._place = stage, stages
        self._below, self._above = ranks[max(0, stage - 1)], ranks[min(stage + 1, len(ranks) - 1)]
        self._leaving: list[tuple[Work | None, Tensor]] = []
        self._device = device
        self._meta: Tensor | None = None
        self.shapes: list[list[Point]] = []

    def exchange_shapes(self, points: Sequence[Point], error: Tensor | None) -> None:
        """Tell all stages the shapes of this one's points and, from the last stage, of the error; once."""
        if self.shapes:
            return
        mine = [Point(point.name, shape_only(point.activation)) for point in points]
        told: list[tuple[list[Point], Tensor | None]] = [([], None)] * self._group.size()
        distributed.all_gather_object(told, (mine, None if error is None else shape_only(error)), self._group)
        self.shapes = [points for points, _ in told]
        self._meta = told[-1][1]

    def start(self, error: Tensor | None) -> tuple[Tensor, Work]:
        """Send the error from the last stage, or begin to receive it; it is there when the work is done."""
        if error is None:
            assert self._meta is not None
            error = torch.empty(self._meta.shape, dtype=self._meta.dtype, device=self._device)
        error = error.contiguous()
        work = distributed.broadcast(_content(error), self._source, group=self._group, async_op=True)
        assert work is not None
        return error, work

    def from_above(self, like: Tensor) -> Tensor:
        """Wait for a tensor of this shape and type from the stage above."""
        received = torch.empty_like(like, memory_format=torch.contiguous_format, requires_grad=False)
        with waiting(*self._place, "a signal of the stage above"):
            distributed.recv(_content(received), self._above, group=self._group)
        return received

    def to_below(self, tensor: Tensor) -> None:
        """Send a tensor to the stage below, and go on."""
        tensor = tensor.detach().contiguous()
        with waiting(*self._place, "the stage below to take a signal"):
            self._leaving.append((distributed.isend(_content(tensor), self._below, group=self._group), tensor))

    def finish(self) -> None:
        """Wait until everything sent to the stage below has been received."""
        with waiting(*self._place, "the stage below to take a signal"):
            for work, _ in self._leaving:
                if work is not None:
                    work.wait()
        self._leaving.clear()


def _content(tensor: Tensor) -> Tensor:
    """View a tensor as bytes, for backends that do not know its type."""
    return tensor.view(torch.uint8) if tensor.ndim else tensor


@contextmanager
def waiting(stage: int, stages: int, what: str) -> Iterator[None]:
    """Turn an error of the communication in this block into one line.

    Raises:
        PipelineError: another stage has ended, or did not answer in time.
    """
    try:
        yield
    except RuntimeError as error:
        reason = first_line(error)
        raise PipelineError(f"stage {stage} of {stages}: no answer while waiting for {what} ({reason})") from None
