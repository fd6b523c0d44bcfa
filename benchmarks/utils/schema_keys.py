"""Keys of a configuration's schema, for messages about keys that it does not have."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from typing import Any

from omegaconf import DictConfig, OmegaConf

from benchmarks.errors import ConfigError


def check_keys(config: DictConfig, above: str = "") -> None:
    """Check that a configuration has no keys beside those of its schema; dictionaries of options are free.

    Raises:
        ConfigError: it has one, as `+key=value` adds it.
    """
    schema: Any = OmegaConf.get_type(config)
    known = {part.name for part in fields(schema)}
    for key in map(str, config):
        if key not in known:
            raise ConfigError(unknown_key(f"{above}{key}", OmegaConf.get_type(config._get_root())))
        if is_dataclass(OmegaConf.get_type(config, key)):
            check_keys(config[key], f"{above}{key}.")


def unknown_key(key: str, schema: Any) -> str:
    """Say in one line that a schema has no such key, with the nearest that it has, else those beside it."""
    keys = list(_keys(schema))
    group, name = _split(key)
    beside = [known for known in keys if _split(known)[0] == group]
    for candidates in (beside, keys):
        by_name = {_split(known)[1]: known for known in reversed(candidates)}
        if near := get_close_matches(name, by_name, n=1):
            return f"unknown key '{key}'; did you mean '{by_name[near[0]]}'?"
    return f"unknown key '{key}'; known: {', '.join(beside or keys)}"


def _split(key: str) -> tuple[str, str]:
    group, _, name = key.rpartition(".")
    return group, name


def _keys(schema: Any, above: str = "") -> Iterator[str]:
    """Yield every key of a schema, those of groups of values as well."""
    for part in fields(schema):
        yield f"{above}{part.name}"
        if is_dataclass(part.type):
            yield from _keys(part.type, f"{above}{part.name}.")
