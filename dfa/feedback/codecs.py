"""Codecs: coarse or noisy channels that the error passes through on its way to the points.

Photonic and neuromorphic hardware delivers signs, a few bits, or noise; see e.g. Launay et al., *Hardware Beyond
Backpropagation: a Photonic Co-Processor for Direct Feedback Alignment* (2020), for ternary errors.

A codec takes its scale (mean, root mean square or maximum) from the whole error that it is given, the rows at hand: the
parts of a batch, coded one by one, differ slightly from the batch coded at once.
"""

from collections.abc import Callable
from math import inf

import torch
from torch import Tensor

from dfa.errors import FeedbackError
from dfa.precision import at_least_single

Codec = Callable[[Tensor], Tensor]


def sign(error: Tensor) -> Tensor:
    """Keep the sign of each entry, times the mean of |e| over the whole tensor."""
    return error.sign() * error.abs().mean()


def ternary(error: Tensor, threshold: float) -> Tensor:
    """Compute ±m where |e| is above `threshold` root mean squares, m being the mean of |e| there, and 0 elsewhere."""
    kept = error.abs() > threshold * _size(error)
    magnitude = (error.abs() * kept).sum() / kept.sum().clamp(min=1)
    return error.sign() * kept * magnitude


def bits(error: Tensor, number: float) -> Tensor:
    """Round to 2^(n-1) - 1 equal steps between 0 and max |e| on either side, n being `number`."""
    steps = 2 ** (int(number) - 1) - 1
    step = error.abs().amax() / steps
    return torch.where(step > 0, (error / step).round() * step, error)


def noise(error: Tensor, level: float) -> Tensor:
    """Add Gaussian noise of `level` root mean squares, from the global generator."""
    drawn = torch.randn_like(error, memory_format=torch.contiguous_format)  # the same whatever the error's strides
    return error + drawn * (level * _size(error))


def _size(error: Tensor) -> Tensor:
    return error.square().mean().sqrt()


_WITH_NUMBER: dict[str, tuple[Callable[[Tensor, float], Tensor], Callable[[float], bool]]] = {
    "ternary": (ternary, lambda threshold: 0 <= threshold < inf),
    "bits": (bits, lambda number: number in range(2, 65)),  # the steps are counted by a 64-bit integer
    "noise": (noise, lambda level: 0 <= level < inf),
}
"""Name → function, and which numbers it takes."""


def parse_codec(text: str | None) -> Codec | None:
    """Turn "sign", "ternary:0.5", "bits:4" or "noise:0.1" into a function of the error; None stays None.

    An error in half precision is coded in float32, and stays so: squares of small errors would be 0.

    Raises:
        FeedbackError: another name, a number that is negative or not finite, or bits other than 2 to 64.
    """
    if text is None:
        return None
    if text == "sign":
        return lambda error: sign(at_least_single(error))
    name, _, number = text.partition(":")
    if name in _WITH_NUMBER:
        function, takes = _WITH_NUMBER[name]
        try:
            value = float(number)
        except ValueError:
            value = inf
        if takes(value):
            return lambda error: function(at_least_single(error), value)
    known = "sign, ternary:<threshold>, bits:<2 to 64>, noise:<level>"
    raise FeedbackError(f"unknown codec '{text}'; known: {known}")
