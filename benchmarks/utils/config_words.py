"""Choices among overrides: the value of a group is the name of one of its files."""

import json
from collections.abc import Iterable
from functools import lru_cache

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, QuotedString

from benchmarks.errors import ConfigError
from benchmarks.utils.config_cases import names_of
from benchmarks.utils.overrides import key_of
from benchmarks.utils.paths import config_folders
from benchmarks.utils.text import unknown_name


def check_groups(overrides: Iterable[str]) -> None:
    """Check the overrides that choose files; Hydra takes the last of a list, and has no words for other values.

    Raises:
        ConfigError: a number, a truth value, null, a list or a mapping instead of a name.
        hydra.errors.OverrideParseException: one that cannot be read.
    """
    for override in overrides:
        if _is_group(key_of(override)):
            _check_group(override)


def _is_group(key: str) -> bool:
    return key.startswith("hydra/") or ("." not in key and any((folder / key).is_dir() for folder in config_folders()))


@lru_cache(maxsize=1024)
def _check_group(override: str) -> None:
    (parsed,) = OverridesParser.create().parse_overrides([override])
    group, written, value = key_of(override), override.partition("=")[2].strip(), parsed.value()
    if parsed.is_delete() and value is None:
        return
    for one in value.list if isinstance(value, ChoiceSweep) else [value]:
        if isinstance(one, (list, dict)):
            raise ConfigError(f"'{override}': one {group} at a time; several with -m and commas, as in {group}=a,b")
        if not isinstance(one, (str, QuotedString, Glob)):
            name = json.dumps(one, default=str) if isinstance(value, ChoiceSweep) else written
            if name in (known := sorted(names_of(group))):
                raise ConfigError(f"'{override}': {name} is no name as it stands; write {group}=\"'{name}'\"")
            raise ConfigError(unknown_name(group, name, known))
