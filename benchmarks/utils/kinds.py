"""Kinds of values that a file from anywhere may hold, and the first field of an object that is of another kind."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.utils.values import is_number


@dataclass(frozen=True)
class Kind:
    """Kind of value: what it is called, and whether a value is one."""

    name: str
    fits: Callable[[Any], bool]


def is_measured(value: Any) -> bool:
    """Whether it is a number, infinite or not a number included: metrics are what a run came to."""
    return is_number(value) or isinstance(value, float)


def maps_to(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Return a check of objects all of whose values fit."""
    return lambda value: isinstance(value, dict) and all(map(fits, value.values()))


LINE = Kind("a line of text", lambda value: isinstance(value, str) and all(ord(sign) >= 32 for sign in value))
TEXT = Kind("text", lambda value: isinstance(value, str))
COUNT = Kind("a count", lambda value: type(value) is int and 0 <= value < 2**63)
AMOUNT = Kind("a number, finite and not negative", lambda value: is_number(value) and value >= 0)
FLAG = Kind("true or false", lambda value: isinstance(value, bool))
BEST = Kind("a number or null", lambda value: value is None or (is_measured(value) and not math.isnan(value)))
METRICS = Kind("names with numbers", maps_to(is_measured))
NAMES = Kind("names with texts", maps_to(LINE.fits))


def misfit(content: object, required: Mapping[str, Kind], optional: Mapping[str, Kind] | None = None) -> str:
    """Say which field of an object is missing or of another kind, "" if none is; other fields are let through."""
    if not isinstance(content, dict):
        return "is not an object"
    for name, kind in {**required, **(optional or {})}.items():
        if name not in content:
            if name in required:
                return f"lacks '{name}'"
        elif not kind.fits(content[name]):
            return f"has {shown(content[name])} for '{name}', which must be {kind.name}"
    return ""


def shown(value: object) -> str:
    """Show a value in a few characters."""
    if isinstance(value, (dict, list)):
        return "a list" if isinstance(value, list) else "an object"
    text = ascii(value)
    return text if len(text) <= 40 else f"{text[:40]}…"
