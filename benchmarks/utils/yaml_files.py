"""YAML files that a user may have written, or damaged: read, or refused in one line."""

import re
from pathlib import Path
from typing import Any

import yaml

from benchmarks.errors import ConfigError
from benchmarks.utils.files import read_regular
from benchmarks.utils.text import first_line

_MOST_BYTES = 2**20
_MOST_VALUES = 100_000  # more than any configuration has; aliases can make a short file endless


class _Loader(yaml.SafeLoader):
    """Reads files as Hydra does: 1e-3 is a number, which in YAML 1.1 lacks a point, and no key is given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        given: set[tuple[str, str]] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if (key.tag, key.value) in given:
                raise yaml.constructor.ConstructorError(None, None, f"key '{key.value}' is given twice", key.start_mark)
            given.add((key.tag, key.value))
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def read_yaml(path: Path, what: str) -> Any:
    """Read a YAML file with plain values.

    Args:
        path: of the file.
        what: it is, for the message, e.g. "search space 'mine.yaml'".

    Raises:
        ConfigError: it cannot be read, is not YAML, or is endless.
    """
    try:
        content = yaml.load(read_regular(path, _MOST_BYTES), _Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{what} is not valid YAML: {_reason(error)}") from None
    except RecursionError:
        raise ConfigError(f"{what} is nested too deeply") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{what} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if _is_endless(content):
        raise ConfigError(f"{what} has more than {_MOST_VALUES} values")
    return content


def _is_endless(content: Any) -> bool:
    left, seen = [content], 0
    while left:
        seen += 1
        if seen > _MOST_VALUES:
            return True
        value = left.pop()
        if isinstance(value, (dict, list)):
            left.extend(value.values() if isinstance(value, dict) else value)
    return False


def _reason(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"{error.problem}, line {error.problem_mark.line + 1}"
    return first_line(error)
