"""Random matrices whose entries can be computed one by one, in any order and on any device.

Row i is a SplitMix64 stream (Steele, Lea and Flood, 2014) started from a hash of seed and i, so an entry depends on the
seed, its row and its column alone, and any block of rows can be had without the rest of the matrix.
"""

from math import tau

import torch
from torch import Tensor

from dfa.errors import FeedbackError

_GOLDEN = 0x9E3779B97F4A7C15 - 2**64  # as the signed integers that torch computes with, modulo 2^64
_FIRST, _SECOND = 0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64
COUNTER_DISTRIBUTIONS = ("uniform", "gaussian")


def counter_block(
    distribution: str, seed: int, start: int, stop: int, columns: int, device: torch.device | None = None
) -> Tensor:
    """Compute rows `start` to `stop` (exclusive) of the endless matrix that belongs to `seed`, as float32.

    "uniform" in [-1, 1) is the same to the bit on every device; "gaussian" (unit variance, Box and Muller) up to the
    device's logarithm and cosine.

    Raises:
        FeedbackError: a distribution that has no entry-by-entry form.
    """
    if distribution not in COUNTER_DISTRIBUTIONS:
        known = ", ".join(COUNTER_DISTRIBUTIONS)
        raise FeedbackError(f"draw='counter' has no distribution '{distribution}'; known: {known}")
    device = torch.device("cpu") if device is None else device  # whatever the default device
    rows = _mix(torch.arange(start, stop, device=device) * _GOLDEN + seed)
    steps = torch.arange(1, columns + 1, device=device) * _GOLDEN
    bits = _mix(rows[:, None] + steps)
    if distribution == "uniform":
        return (bits >> 40).float() * 2.0**-23  # 24 bits with a sign, which a float holds exactly
    radius = ((_shift(bits, 40) + 1).float() * 2.0**-24).log_().mul_(-2).sqrt_()
    angle = (_shift(bits, 16) & 0xFFFFFF).float() * (tau * 2.0**-24)
    return radius * angle.cos_()


def _mix(state: Tensor) -> Tensor:
    """SplitMix64's output function."""
    state = (state ^ _shift(state, 30)) * _FIRST
    state = (state ^ _shift(state, 27)) * _SECOND
    return state ^ _shift(state, 31)


def _shift(bits: Tensor, places: int) -> Tensor:
    """Logical shift to the right; torch's own copies the sign."""
    return (bits >> places) & ((1 << (64 - places)) - 1)
