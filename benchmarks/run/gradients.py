"""The sum of gradients over the processes of a run."""

from collections.abc import Iterable

import torch
from torch import Tensor, distributed, nn

_BUCKET_BYTES = 25 << 20


class GradientSum:
    """Replaces every gradient by its sum over the processes, in buckets that are reduced concurrently.

    The processes agree at every step which parameters have a gradient: those without one in any process keep None, so
    that no optimiser updates parameters below a cut.
    """

    def __init__(self, several: bool, parameters: Iterable[nn.Parameter]) -> None:
        self._several = several
        self._parameters = list(parameters)
        self._present: list[int] = []
        self._buckets: list[list[nn.Parameter]] = []

    def __call__(self) -> None:
        """Sum the gradients and leave the sums in `.grad`."""
        if not self._several:
            return
        present = torch.tensor([int(parameter.grad is not None) for parameter in self._parameters])
        distributed.all_reduce(present, op=distributed.ReduceOp.MAX)
        if present.tolist() != self._present:
            self._present = present.tolist()
            self._buckets = self._fill()
        flat = [torch.cat([_gradient(parameter) for parameter in bucket]) for bucket in self._buckets]
        for work in [distributed.all_reduce(bucket, async_op=True) for bucket in flat]:
            work.wait()
        for bucket, sums in zip(self._buckets, flat, strict=True):
            for parameter, part in zip(bucket, sums.split([p.numel() for p in bucket]), strict=True):
                parameter.grad = part.view_as(parameter)

    def _fill(self) -> list[list[nn.Parameter]]:
        buckets: list[list[nn.Parameter]] = []
        room, kind = 0, None
        for parameter in (p for p, there in zip(self._parameters, self._present, strict=True) if there):
            size = parameter.numel() * parameter.element_size()
            if size > room or parameter.dtype != kind:
                buckets.append([])
                room, kind = _BUCKET_BYTES, parameter.dtype
            buckets[-1].append(parameter)
            room -= size
        return buckets


def _gradient(parameter: nn.Parameter) -> Tensor:
    gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    return gradient.reshape(-1)
