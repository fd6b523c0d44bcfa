"""Contents of YAML files, checked against a schema."""

from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from benchmarks.errors import ConfigError

Schema = TypeVar("Schema")


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
        raise ConfigError(f"{where}: {first_line(error)}") from None
    assert isinstance(merged, schema)
    return merged


def first_line(error: Exception) -> str:
    """Return an error's first line without OmegaConf's internals."""
    lines = str(error).splitlines()
    key = next((line.split(":", 1)[1].strip() for line in lines[1:] if "full_key" in line), "")
    return f"{lines[0]} (at {key})" if key else lines[0]
