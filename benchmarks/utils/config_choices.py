"""What the files of a configuration choose by name, and that none of them replaces the choice of another."""

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, open_dict, read_write

from benchmarks.errors import ConfigError
from benchmarks.utils.overrides import key_of
from benchmarks.utils.paths import config_folders
from benchmarks.utils.yaml_files import read_yaml

NAMED = ("task", "model", "rule", "optimizer", "schedule")
"""Groups whose files name what is trained, and how."""

Choices = dict[str, str | None]
"""Group → its file."""


def taken_apart(config: DictConfig) -> tuple[DictConfig, Choices]:
    """Take Hydra's own part out of a configuration that it composed, and return the choices of files that it tells."""
    choices = {str(group): file for group, file in config.hydra.runtime.choices.items()}
    with read_write(config), open_dict(config):
        del config["hydra"]
    return config, choices


def check_choices(config: DictConfig, choices: Choices, overrides: Iterable[str]) -> None:
    """Check that a configuration names what was chosen for it: the file of a model, say, may set the name of a rule.

    Args:
        config: as it was composed.
        choices: group → file, as Hydra tells them.
        overrides: what was asked for; a name that one of them sets is meant.

    Raises:
        ConfigError: the files of other groups set a name.
    """
    set_by_hand = {key_of(override) for override in overrides}
    files = {f"{group}/{file}": group in (*NAMED, "launcher") for group, file in choices.items()}
    for group in NAMED:
        chosen, name = choices.get(group), _name_of(config, group)
        own = name_in(f"{group}/{chosen}", group)
        if chosen is None or own in ("", name) or f"{group}.name" in set_by_hand:
            continue
        setting = {file: always for file, always in files.items() if name_in(file, group) not in ("", own)}
        if not all(setting.values()):  # a file of a further group, such as `+chosen=mine`, was asked for, too
            continue
        where = str(_path_of(list(setting)[-1])) if setting else "a configuration"
        raise ConfigError(
            f"'{where}' sets `{group}.name: {name}` over {group}={chosen}: "
            f"leave it out and choose {group}={name}, or write `override /{group}: {name}` among its defaults"
        )


def name_in(file: str, group: str) -> str:
    """Return the name that a file chooses for a group, itself or through those it builds on; "" where it has none.

    Args:
        file: its group and name, e.g. "model/gcn".
        group: may be another, since models set values of other groups, too.
    """
    return _name_in(file, group, frozenset())


def _name_in(file: str, group: str, seen: frozenset[str]) -> str:
    path = _path_of(file)
    if path is None or file in seen:
        return ""
    content = _content(path, path.stat().st_mtime_ns)
    inner = content.get(group, content if file.startswith(f"{group}/") else {})
    own = str(inner.get("name", "")) if isinstance(inner, dict) else ""
    names = [own if part == "_self_" else _name_in(part, group, seen | {file}) for part in _parts(file, content)]
    return next(filter(None, reversed(names)), "")


def _parts(file: str, content: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a file is merged from, in order: the files that it builds on, and "_self_" for what it holds."""
    folder = file.rpartition("/")[0]
    listed = content.get("defaults")
    bases = [base for base in listed if isinstance(base, str)] if isinstance(listed, list) else []
    for base in bases:
        name = base.partition("@")[0].removesuffix(".yaml")
        yield name.lstrip("/") if name == "_self_" or name.startswith("/") else f"{folder}/{name}"
    if "_self_" not in bases:
        yield "_self_"  # where Hydra puts it


def _path_of(file: str) -> Path | None:
    """Find the file of a configuration in the first folder that has it."""
    paths = (folder / f"{file}.yaml" for folder in config_folders())
    return next(filter(Path.is_file, paths), None)


def _name_of(config: DictConfig, group: str) -> str:
    """Return the name in a configuration as it is written there."""
    return str(config[group]._get_node("name")._value())


@lru_cache(maxsize=1024)
def _content(path: Path, changed: int) -> dict[str, Any]:
    """Return what a file holds; `changed` has a new file read again."""
    try:
        content = read_yaml(path, path.name)
    except ConfigError:
        return {}  # whoever chooses it is told
    return content if isinstance(content, dict) else {}
