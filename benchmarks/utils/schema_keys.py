"""Keys of a configuration's schema, for messages about keys that it does not have."""

from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from typing import Any

from omegaconf import DictConfig, OmegaConf

from benchmarks.errors import ConfigError


def check_keys(config: DictConfig, above: str = "") -> None:
    """Check that a configuration has no keys beside those of its schema; dictionaries of options are free.

    Raises:
        ConfigError: it has one, as `+key=value` adds it; or a value with a reference that is not to be followed, which
            whatever reads the configuration again would follow.
    """
    if not above:
        _check_references(config)
    schema: Any = OmegaConf.get_type(config)
    known = {part.name for part in fields(schema)}
    for key in map(str, config):
        if key not in known:
            raise ConfigError(unknown_key(f"{above}{key}", OmegaConf.get_type(config._get_root())))
        if is_dataclass(OmegaConf.get_type(config, key)):
            check_keys(config[key], f"{above}{key}.")


def _check_references(config: DictConfig) -> None:
    written = OmegaConf.to_container(config, resolve=False)
    assert isinstance(written, dict)
    # What names a folder has a message of its own.
    if any("\\${" in str(values) for group, values in written.items() if group != "run"):
        raise ConfigError("a value holds '\\${': text that looks like a reference cannot be kept in a configuration")


def unknown_key(key: str, schema: Any) -> str:
    """Say in one line that a schema has no such key, with the nearest that it has, else those beside it.

    A key of another group is near where it has the very name, or none is beside it.
    """
    keys = list(_keys(schema))
    group, name = _split(key)
    beside = [known for known in keys if _split(known)[0] == group]
    for candidates, likeness in ((beside, 0.7), (keys, 1.0 if group and beside else 0.7)):
        by_name = {_split(known)[1]: known for known in reversed(candidates)}
        if near := get_close_matches(name, by_name, n=1, cutoff=likeness):
            return f"unknown key '{key}'; did you mean '{by_name[near[0]]}'?"
    options = "" if group else f"; an option of a rule is rule.options.{name}, of a model or task likewise"
    return f"unknown key '{key}'; known: {', '.join(beside or keys)}{options}"


def unknown_option(key: str, known: Iterable[str]) -> str:
    """Say in one line that a configuration gives no such option, with the nearest that it gives, else all of them.

    What is configured may take further options than its file gives; they are added with a plus.
    """
    group, name = _split(key)
    options = {option: f"{group}.{option}" for option in known}
    if near := get_close_matches(name, options, n=1):
        return f"unknown key '{key}'; did you mean '{options[near[0]]}'?"
    known_here = f"known: {', '.join(options.values())}; " if options else ""
    return f"unknown key '{key}'; {known_here}an option that no file sets is given with a plus: +{key}=…"


def _split(key: str) -> tuple[str, str]:
    group, _, name = key.rpartition(".")
    return group, name


def _keys(schema: Any, above: str = "") -> Iterator[str]:
    """Yield every key of a schema, those of groups of values as well."""
    for part in fields(schema):
        yield f"{above}{part.name}"
        if is_dataclass(part.type):
            yield from _keys(part.type, f"{above}{part.name}.")
