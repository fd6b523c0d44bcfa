"""Factors that a GradScaler puts on a loss."""

import torch
from torch import Tensor


def loss_scale(loss: Tensor) -> Tensor | None:
    """Return the factor that a `torch.amp.GradScaler` has multiplied a loss by, without dimensions; None without one.

    A scaler multiplies last, by a tensor in single precision. A plain number or a weight that is learned is part of the
    loss.
    """
    product = loss.grad_fn
    if type(product).__name__ != "MulBackward0" or product.next_functions[1][0] is not None:  # type: ignore[union-attr]
        return None
    factor = product._saved_other  # type: ignore[union-attr]
    is_scale = isinstance(factor, Tensor) and factor.ndim == 0 and factor.dtype == torch.float32
    return factor if is_scale else None
