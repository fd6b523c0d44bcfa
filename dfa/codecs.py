"""What a coarse or noisy channel makes of the error on its way to the points.

Photonic and neuromorphic hardware delivers signs, a few bits, or noise; see e.g. Launay et al., *Hardware Beyond
Backpropagation: a Photonic Co-Processor for Direct Feedback Alignment* (2020), for ternary errors.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from dfa.errors import FeedbackError

Codec = Callable[[Tensor], Tensor]


def sign(error: Tensor) -> Tensor:
    """mean |e| · sign(e), the mean over the whole tensor."""
    return error.sign() * error.abs().mean()


def ternary(error: Tensor, threshold: float) -> Tensor:
    """±m where |e| is above `threshold` root mean squares, otherwise 0; m is the mean of |e| over the former."""
    kept = error.abs() > threshold * _size(error)
    magnitude = (error.abs() * kept).sum() / kept.sum().clamp(min=1)
    return error.sign() * kept * magnitude


def bits(error: Tensor, number: float) -> Tensor:
    """Rounded to 2^(n-1) - 1 equal steps between 0 and max |e| on either side."""
    steps = 2 ** (int(number) - 1) - 1
    step = error.abs().amax() / steps
    return torch.where(step > 0, (error / step).round() * step, error)


def noise(error: Tensor, level: float) -> Tensor:
    """e plus Gaussian noise of `level` root mean squares, from the global generator."""
    return error + torch.randn_like(error) * (level * _size(error))


def _size(error: Tensor) -> Tensor:
    return error.square().mean().sqrt()


_WITH_NUMBER: dict[str, tuple[Callable[[Tensor, float], Tensor], float]] = {
    "ternary": (ternary, 0.0),
    "bits": (bits, 2),
    "noise": (noise, 0.0),
}
"""Name → function, and the least number it takes."""


def parse_codec(text: str | None) -> Codec | None:
    """ "sign", "ternary:0.5", "bits:4" or "noise:0.1" as a function of the error; None for none.

    Raises:
        FeedbackError: anything else.
    """
    if text is None:
        return None
    if text == "sign":
        return sign
    name, _, number = text.partition(":")
    if name in _WITH_NUMBER:
        function, least = _WITH_NUMBER[name]
        try:
            value = float(number)
        except ValueError:
            value = least - 1
        if value >= least:
            return lambda error: function(error, value)
    known = "sign, ternary:<threshold>, bits:<2 or more>, noise:<level>"
    raise FeedbackError(f"unknown codec '{text}'; known: {known}")
