"""Factors that a GradScaler puts on a loss."""

import gc
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from dfa.errors import PointError

_SUMS = ("AddBackward0", "SubBackward0")
_MULTIPLES = ("NegBackward0", "DivBackward0", "MulBackward0")
_REDUCTIONS = ("SumBackward", "MeanBackward", "StackBackward", "CatBackward", "ViewBackward", "SqueezeBackward")
"""Beginnings of the names of nodes that reduce a loss that has several numbers, or put some together."""

_of_scalers = WeakTensorKeyDictionary()


def factors_of(loss: Tensor) -> list[Tensor | None]:
    """List what may be a GradScaler's factor of each term of a loss, which is a sum of terms; None for one without.

    A scaler multiplies by a tensor without dimensions in single precision. A plain number or a weight that is learned
    is part of the loss.
    """
    return list(_factors(loss.grad_fn))


def may_be_scaled(loss: Tensor) -> bool:
    """Whether a GradScaler may have multiplied a loss, or a part of it."""
    return any(factor is not None for factor in factors_of(loss))


def _factors(node: Any) -> Iterator[Tensor | None]:
    """Go down from the node of a loss through sums, multiples and reductions.

    Of losses that are reduced, only a scaler's factor counts, for any other may weigh their numbers.
    """
    waiting = [(node, False)]
    seen: set[tuple[Any, bool]] = set()
    while waiting:
        node, reduced = waiting.pop()
        if (node, reduced) in seen:
            continue
        seen.add((node, reduced))
        below = [] if node is None else [before for before, _ in node.next_functions if before is not None]
        kind = type(node).__name__
        factor = node._saved_other if kind == "MulBackward0" and node.next_functions[1][0] is None else None
        number = factor if isinstance(factor, Tensor) and factor.ndim == 0 and factor.dtype == torch.float32 else None
        if number is not None and (not reduced or _is_scalers(number)):
            yield number
        elif kind in _SUMS or (kind in _MULTIPLES and len(below) == 1):
            waiting += [(before, reduced) for before in below]
        elif kind.startswith(_REDUCTIONS):
            waiting += [(before, True) for before in below]
        else:
            yield None


def scale_among(factors: Sequence[Tensor | None], rule: str) -> Tensor | None:
    """Return the factor that a `torch.amp.GradScaler` has multiplied a whole loss by; None without one.

    Args:
        factors: of the loss, see `factors_of`.
        rule: name of the rule that asks.

    Raises:
        PointError: it cannot be told: a factor is no scaler's, or the terms of the loss have several.
    """
    for factor in factors:
        if factor is not None and not _is_scalers(factor):
            raise PointError(
                f"rule '{rule}' cannot tell whether a factor of the loss is a GradScaler's: multiply by a number"
                " instead of a tensor (factor.item()), and let torch.amp.GradScaler scale losses one by one"
            )
    if any(factor is not factors[0] for factor in factors):
        raise PointError(f"rule '{rule}': one GradScaler must scale all terms of the loss, or none")
    return factors[0] if factors else None


def _is_scalers(factor: Tensor) -> bool:
    """Whether a tensor is the scale of a GradScaler, which keeps the same one and changes it in place."""
    if factor not in _of_scalers:
        # Autograd keeps that very tensor, but not whose it is. The search takes tens of ms, once for a scaler.
        holders = gc.get_referrers(factor)
        _of_scalers[factor] = any(isinstance(holder, torch.amp.GradScaler) for holder in holders) or any(
            type(holder) is dict and holder.get("_scale") is factor and "_growth_tracker" in holder
            for holder in holders
        )
    return bool(_of_scalers[factor])
