"""Precision of what a rule computes by itself: at least single, and without autocast, which is for forward passes."""

import torch
from torch import Tensor


def at_least_single(tensor: Tensor) -> Tensor:
    """Return a tensor in float32 where it has less: squares of small errors would be 0."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def without_autocast(tensor: Tensor) -> torch.autocast:
    """Return a block without autocast on the device of a tensor."""
    return torch.autocast(tensor.device.type, enabled=False)
