"""Checks of the numbers and words among a rule's options; each error names the option and the value."""

import sys
from collections.abc import Iterable
from math import inf
from numbers import Integral

from dfa.errors import FeedbackError

_GREATEST = sys.float_info.max
_SEEDS = 2**64  # as many as torch.Generator takes


def check_number(name: str, value: float, least: float = -inf, most: float = inf) -> None:
    """Check a number.

    Raises:
        FeedbackError: it is infinite, not a number, below `least` or above `most`.
    """
    if max(least, -_GREATEST) <= value <= min(most, _GREATEST):  # not so for nan
        return
    if most < inf:
        wanted = f"from {least:g} to {most:g}"
    else:
        wanted = "finite" if least == -inf else f"finite and at least {least:g}"
    raise FeedbackError(f"{name} must be {wanted}, got {value}")


def check_count(name: str, value: int, least: int = 1) -> None:
    """Check a whole number.

    Raises:
        FeedbackError: it is another number, or below `least`.
    """
    if not isinstance(value, Integral):
        raise FeedbackError(f"{name} must be a whole number, got {value!r}")
    if value < least:
        raise FeedbackError(f"{name} must be at least {least}, got {value}")


def check_choice(name: str, value: str, known: Iterable[str]) -> None:
    """Check a word among some.

    Raises:
        FeedbackError: it is another one.
    """
    if value not in (known := tuple(known)):
        raise FeedbackError(f"unknown {name} {value!r}; known: {', '.join(known)}")


def check_seed(value: int) -> None:
    """Check the seed of a draw.

    Raises:
        FeedbackError: it is no whole number from 0 to 2**64 - 1.
    """
    if not isinstance(value, Integral) or not 0 <= value < _SEEDS:
        raise FeedbackError(f"seed must be a whole number from 0 to 2**64 - 1, got {value!r}")
