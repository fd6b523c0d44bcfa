"""Search spaces: which keys of a configuration are searched, and what Optuna draws their values from."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from benchmarks.config import CIRCUMSTANCES
from benchmarks.errors import ConfigError
from benchmarks.tuning.search_report import Axis
from benchmarks.utils.overrides import key_of, without
from benchmarks.utils.paths import config_files
from benchmarks.utils.schema_keys import unknown_key
from benchmarks.utils.values import is_number
from benchmarks.utils.yaml_files import read_yaml

_ABSENT = object()


def known_spaces() -> list[str]:
    """List the names of the suite's and the user's own search spaces."""
    return list(config_files("search"))


def axes_of(space: str, composed: DictConfig, choice: Sequence[str]) -> dict[str, Axis]:
    """Return the axes of a space that are left to search.

    Args:
        space: see `read_space`.
        composed: the configuration; options that it has not are left out.
        choice: the overrides that it was composed from; what they set is held.

    Raises:
        ConfigError: see `read_space`; none is left, or a key is one of seeds or of where and how runs are carried out.
    """
    axes = {
        key: axis
        for key, axis in read_space(space).items()
        if _is_there(composed, key, space) and without(choice, key) == tuple(choice)
    }
    if not axes:
        raise ConfigError(f"space '{space}': none of its keys is left to search here")
    if seeded := [item for item in (*choice, *axes) if key_of(item) == "seed"]:
        raise ConfigError(f"{seeded[0]}: a search runs each proposal with seeds 0 to n - 1 (--seeds)")
    if idle := [key for key in axes if key.split(".")[0] in CIRCUMSTANCES]:
        raise ConfigError(f"search space '{space}': {idle[0]} changes no result, so that there is nothing to search")
    return axes


def read_space(space: str) -> dict[str, Axis]:
    """Read a search space: key of the configuration → what Optuna draws its value from.

    A file maps keys to `{low, high}` with `log` or `step`, integers if both bounds are, or to a list of choices.

    Args:
        space: name of a file in `configs/search` or in a folder of the user's own, or path of another.

    Raises:
        ConfigError: no Optuna, no such space, or a file that does not describe one.
    """
    path = Path(space) if space.endswith((".yaml", ".yml")) else config_files("search").get(space, Path(space))
    if not path.exists():
        raise ConfigError(f"unknown search space '{space}'; known: {', '.join(known_spaces())}, or a YAML file")
    content = read_yaml(path, f"search space '{space}'")
    if not isinstance(content, dict) or not content:
        raise ConfigError(f"search space '{space}' names no keys")
    if strange := [key for key in content if not isinstance(key, str)]:
        raise ConfigError(f"search space '{space}': {strange[0]!r} is not a key of the configuration")
    return {key: _axis(f"search space '{space}': {key}", axis) for key, axis in content.items()}


def _is_there(composed: DictConfig, key: str, space: str) -> bool:
    """Return whether a configuration has a key, with a value that can be searched; options differ between models.

    Raises:
        ConfigError: the key is that of a group of values, or none of a configuration's.
    """
    value = OmegaConf.select(composed, key, default=_ABSENT)
    if value is _ABSENT and ".options." not in key:
        raise ConfigError(f"search space '{space}': {unknown_key(key, OmegaConf.get_type(composed))}")
    if OmegaConf.is_dict(value):
        raise ConfigError(f"search space '{space}': {key} is a group of values; name one of them")
    return value is not _ABSENT


def _axis(where: str, axis: Any) -> Axis:
    kinds = load_optuna().distributions
    try:
        if isinstance(axis, list):
            if strange := [choice for choice in axis if not isinstance(choice, (str, int, float, bool, type(None)))]:
                raise ConfigError(f"{where}: {strange[0]!r} is not a value to choose")
            return kinds.CategoricalDistribution(axis)
        for name, value in axis.items():
            if name in ("low", "high", "step") and not is_number(value):
                raise ConfigError(f"{where}: {name} must be a finite number, not {value!r}")
            if name == "log" and not isinstance(value, bool):
                raise ConfigError(f"{where}: log must be true or false, not {value!r}")
        if not all(isinstance(axis[bound], int) for bound in ("low", "high")):
            return kinds.FloatDistribution(**axis)
        if not isinstance(axis.get("step", 1), int):  # Optuna would round it
            raise ConfigError(f"{where}: the step between integers must be an integer, not {axis['step']}")
        return kinds.IntDistribution(**axis)
    except (TypeError, KeyError, AttributeError):
        raise ConfigError(f"{where} must be a list, or have low, high and perhaps log or step") from None
    except ValueError as error:
        raise ConfigError(f"{where}: {' '.join(str(error).split())}") from None


def load_optuna() -> Any:
    """Return the package Optuna, which says little from then on.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise ConfigError("the search needs Optuna: pip install -e '.[search]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
