"""Batch normalisation over the rows of all processes."""

from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm


class _Sum(torch.autograd.Function):
    """Sum over the processes; what each of them makes of the sum comes back to all."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, group: Any) -> Tensor:
        ctx.group = group
        return _summed(tensor, group)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return _summed(gradient, ctx.group), None


def _summed(tensor: Tensor, group: Any) -> Tensor:
    total = tensor.clone(memory_format=torch.contiguous_format)
    distributed.all_reduce(total, group=group)
    return total


class SharedBatchNorm(_BatchNorm):
    """Batch normalisation over the rows of all processes, however many each of them has.

    It does what `nn.SyncBatchNorm` does, which takes no tensors on a CPU; running mean and variance are shared, too.

    Attributes:
        process_group: who takes part; None: processes.

    Shape: (rows, channels, ...) → the same.
    """

    process_group: Any = None

    @classmethod
    def like(cls, other: _BatchNorm) -> "SharedBatchNorm":
        """One with the parameters, running statistics and settings of another batch normalisation, shared with it."""
        new = cls(other.num_features, other.eps, other.momentum, other.affine, other.track_running_stats)
        for name, parameter in other._parameters.items():
            setattr(new, name, parameter)
        for name, buffer in other._buffers.items():
            setattr(new, name, buffer)
        return new.train(other.training)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected at least 2 dimensions, got {input.dim()}")

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        if not self.training or distributed.get_world_size(self.process_group) == 1:
            return super().forward(input)
        rows = input.to(torch.promote_types(input.dtype, torch.float32))
        inner = [0, *range(2, rows.ndim)]
        per_channel = (1, -1, *[1] * (rows.ndim - 2))
        here = rows.new_full((1,), rows.numel() // rows.shape[1])
        sums = _Sum.apply(torch.cat([rows.sum(inner), here]), self.process_group)
        count = float(sums[-1].detach())
        if count < 2:
            raise ValueError("batch normalisation needs more than one value per channel to train on")
        mean = sums[:-1] / count
        centred = rows - mean.view(per_channel)
        # A second sum, not the mean of the squares less the square of the mean: the difference would lose digits.
        variance = _Sum.apply(centred.square().sum(inner), self.process_group) / count
        self._follow(mean.detach(), variance.detach() * (count / (count - 1)))
        normalised = centred * torch.rsqrt(variance + self.eps).view(per_channel)
        if self.affine:
            normalised = normalised * self.weight.view(per_channel) + self.bias.view(per_channel)
        return normalised.to(input.dtype)

    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics towards those of a batch."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(variance.to(self.running_var.dtype), share)


def share_batch_norms(model: nn.Module, device: torch.device) -> None:
    """Have every batch normalisation inside a model see the rows of all processes; names and parameters stay."""
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return
    for name, child in model.named_children():
        if isinstance(child, _BatchNorm):
            setattr(model, name, SharedBatchNorm.like(child))
        else:
            share_batch_norms(child, device)


def shared_batch_norms(model: nn.Module) -> list[SharedBatchNorm | nn.SyncBatchNorm]:
    """Those that `share_batch_norms` has made."""
    return [module for module in model.modules() if isinstance(module, (SharedBatchNorm, nn.SyncBatchNorm))]
