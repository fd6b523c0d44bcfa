"""Contents of YAML files, checked against a schema."""

import re
from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from benchmarks.errors import ConfigError
from benchmarks.utils.text import first_line

Schema = TypeVar("Schema")

_MISSING = re.compile(r"Structured config of type `\w+` has missing mandatory value: (\w+)")
_LIST_WANTED = re.compile(r"Invalid value assigned: \w+ is not a ListConfig")


def typed(schema: type[Schema], content: Any, where: str) -> Schema:
    """Return a content as an instance of a dataclass.

    Args:
        schema: the dataclass.
        content: a mapping.
        where: it is from, e.g. "table file table_3.yaml", for the message.

    Raises:
        ConfigError: it lacks a key, has one more, or a value of another type.
    """
    try:
        merged = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), content))
    except (OmegaConfBaseException, ValueError, TypeError) as error:
        raise ConfigError(f"{where}: {omegaconf_reason(error)}") from None
    assert isinstance(merged, schema)
    return merged


def omegaconf_reason(error: Exception) -> str:
    """Return what OmegaConf's error says, and of which key, without its internals."""
    key = next((line.split(":", 1)[1].strip() for line in str(error).splitlines()[1:] if "full_key" in line), "")
    if lacking := _MISSING.match(str(error)):
        return f"'{lacking[1]}' is missing"
    if _LIST_WANTED.match(str(error)):
        return f"'{key}' must be a list, as [a, b]"
    return f"{first_line(error)} (at {key})" if key else first_line(error)
