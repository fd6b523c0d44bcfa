"""Overrides of a configuration, `key=value`, taken as a list in which the last one of a key counts."""

import re
from collections.abc import Iterable


def value_of(overrides: Iterable[str], key: str) -> str:
    """Return the value that overrides give a key, "" where they do not set it."""
    values = [value for name, _, value in (item.partition("=") for item in overrides) if name == key]
    return values[-1] if values else ""


def key_of(override: str) -> str:
    """Return the key that an override sets, adds, replaces or removes; of a group, without the package it goes to."""
    return override.lstrip("+~").partition("=")[0].partition("@")[0].strip()


def without(overrides: Iterable[str], key: str) -> tuple[str, ...]:
    """Return the overrides that neither set a key nor add, replace or remove it."""
    return tuple(item for item in overrides if key_of(item) != key)


def with_value(overrides: Iterable[str], key: str, value: str) -> tuple[str, ...]:
    """Return the overrides with another value wherever they set a key, or with one more where none does."""
    items, setting = tuple(overrides), f"{key}={value}"
    replaced = tuple(setting if item.partition("=")[0] == key else item for item in items)
    return replaced if setting in replaced else (*replaced, setting)


def quoted(text: str) -> str:
    """Write a text so that Hydra reads it as it is, whatever signs are in it."""
    return "'" + escaped(text.replace("${", "\\${")) + "'"


def escaped(text: str) -> str:
    """Escape a text that is put between single quotes, in the grammar of Hydra and OmegaConf."""
    return re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + ("\\'" if found[2] else ""), text)
