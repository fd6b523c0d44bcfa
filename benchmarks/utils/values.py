"""Checks of single values of a configuration; each error names the key and the value."""

import math
import os
import re
import sys
from collections.abc import Collection
from pathlib import Path

from benchmarks.errors import ConfigError
from benchmarks.utils.text import unknown_name

_NAME = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9_.+-]*")
_LONGEST_NAME = 150  # of 255, so that a suffix fits
_LONGEST_FOLDER = 3000  # of 4096, so that a run's folder fits below
MOST = 2**31 - 1
"""Greatest count that is let through."""


def is_number(value: object) -> bool:
    """Return whether it is a number that fits a float: finite, and not true or false."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return -sys.float_info.max <= value <= sys.float_info.max


def check_known(key: str, value: str, known: Collection[str], where: str = "") -> None:
    """Check a word that is one of a few.

    Args:
        key: what it is a name of.
        value: the word.
        known: the few.
        where: beginning of the message, e.g. the file that the word is in.

    Raises:
        ConfigError: it is not among the known ones.
    """
    if value not in known:
        raise ConfigError(f"{where}{unknown_name(key, value, known)}")


def check_least(key: str, value: float, least: float) -> None:
    """Check a number that has a lower bound.

    Raises:
        ConfigError: it is below, or not a number.
    """
    if not value >= least:
        raise ConfigError(f"{key} must be at least {least:g}, got {value}")


def check_probability(key: str, value: float) -> None:
    """Check the probability with which something is left out, which is not all.

    Raises:
        ConfigError: it is not at least 0 and below 1.
    """
    if not 0 <= value < 1:
        raise ConfigError(f"{key} must be at least 0 and below 1, got {value}")


def check_count(key: str, value: int | None, most: int = MOST) -> None:
    """Check a count, or null.

    Raises:
        ConfigError: it is below 1 or above `most`.
    """
    if value is not None and value < 1:
        raise ConfigError(f"{key} must be at least 1, got {value}")
    if value is not None and value > most:
        raise ConfigError(f"{key} must be at most {most}, got {value}")


def check_number(key: str, value: float | None, zero: bool = False) -> None:
    """Check a number, or null.

    Args:
        key: its name.
        value: the number.
        zero: whether it may be zero.

    Raises:
        ConfigError: it is negative, infinite, not a number, or zero and must not be.
    """
    if value is None or (math.isfinite(value) and (value > 0 or (zero and value == 0))):
        return
    raise ConfigError(f"{key} must be {'finite and not negative' if zero else 'positive and finite'}, got {value}")


def check_name(key: str, value: str) -> None:
    """Check a name that becomes part of a path.

    Raises:
        ConfigError: it is not made of letters, digits, `_`, `+`, `-` and dots inside, or too long.
    """
    if not _NAME.fullmatch(value):
        raise ConfigError(f"{key} must be a name of letters, digits, _, +, - and dots, got {_shown(value)}")
    if len(value) > _LONGEST_NAME:
        raise ConfigError(f"{key} must have at most {_LONGEST_NAME} letters, got {_shown(value)}")


def expanded_folder(key: str, value: str) -> str:
    """Return the path of a folder, with `~` replaced by the user's home.

    Raises:
        ConfigError: it is empty or too long, refers to another value, or there is no such user.
    """
    if not value.strip() or "\0" in value or "${" in value:  # a reference left over would count wherever it is read
        raise ConfigError(f"{key} must name a folder, got {_shown(value)}")
    try:
        folder = str(Path(value).expanduser()) if value.startswith("~") else value
    except RuntimeError as error:
        raise ConfigError(f"{key}: {error}") from None
    if len(os.fsencode(folder)) > _LONGEST_FOLDER or any(len(part) > 255 for part in os.fsencode(folder).split(b"/")):
        raise ConfigError(f"{key} is too long a path, got {_shown(value)}")
    return folder


def _shown(value: str) -> str:
    """Show a value in a message, the beginning of one that is long."""
    return repr(value) if len(value) <= _LONGEST_NAME else f"{value[:_LONGEST_NAME]!r}…"
