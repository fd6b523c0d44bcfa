"""Cases of a configuration file: what it sets for a rule, a task, a schedule or a scale instead of its plain values.

    optimizer: {lr: 0.01}
    trainer: {epochs: 250}
    by_rule:
      bp: {optimizer.lr: 5e-3}
    by_scale:
      mini:
        trainer.epochs: 60
        by_rule: {bp: {optimizer.lr: 0.1}}

A block names a choice (`by_rule` reads `rule.name`) and maps its cases to the values that they set; keys are paths
within the file. Blocks count in the order in which they are written: the last one that sets a value decides it.
Within a block the case of that very name counts, else the first pattern that fits, such as `llff_*`, else `other`. A
case may hold blocks of its own. Each value needs a plain one in the same file, for when no case sets it.

A file's cases stand for the values of that file alone. When Hydra reads the file, every value that a case sets
becomes an interpolation, `${cases:'{"plain": 0.01, "by_rule": {"bp": {"plain": 0.005}}}'}`, and whatever is merged
later, from another file or the command line, replaces it as it would replace a plain value.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins import file_config_source
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig, OmegaConf

from benchmarks.errors import ConfigError
from benchmarks.utils.overrides import escaped
from benchmarks.utils.paths import CONFIG_DIR, config_files
from benchmarks.utils.yaml_files import read_yaml

PUBLISHED, REDUCED = "paper", ("mini", "smoke")
"""The scale that plain values belong to, and those that change them."""

BLOCKS = {"by_rule": "rule.name", "by_task": "task.name", "by_schedule": "schedule.name", "by_scale": "scale"}
"""Block → key of the configuration that decides between its cases."""

_OTHER, _PLAIN = "other", "plain"

_READ: dict[tuple[str, str, bytes], ConfigResult] = {}
"""What files hold; reading one takes ten times as long as copying it."""


class FileConfigSource(file_config_source.FileConfigSource):
    """Hydra's source of YAML files, with cases."""

    def load_config(self, config_path: str) -> ConfigResult:
        """Read a file and work its cases into its values; both are remembered for the next time.

        Raises:
            ConfigError: a block that names a case or a value that there is not; a user's own file that is not YAML.
        """
        file = Path(self.path, self._normalize_file_name(config_path))
        key = self.provider, str(file), file.read_bytes() if file.is_file() else b""
        if key not in _READ:
            if Path(self.path) != CONFIG_DIR and file.exists():
                _check_own_file(file)
            _READ[key] = self._load(config_path)
        return deepcopy(_READ[key])

    def _load(self, config_path: str) -> ConfigResult:
        result = super().load_config(config_path)
        if isinstance(result.config, DictConfig) and not BLOCKS.keys().isdisjoint(result.config):
            where = f"{config_path.removesuffix('.yaml')}.yaml"
            result.config = with_cases(result.config, where, lambda group: names_of(group, Path(self.path)))
        return result


def _check_own_file(file: Path) -> None:
    """Check a file of the user's own, whose mistakes Hydra would tell in its own words, or not at all.

    Raises:
        ConfigError: it is no YAML file of keys and values.
    """
    content = read_yaml(file, f"the configuration '{file}'")
    if content is not None and not isinstance(content, dict):
        raise ConfigError(f"the configuration '{file}' must map keys to values")


def install() -> None:
    """Have Hydra read files with `FileConfigSource`; may be called again.

    Hydra registers sources by address scheme, and has no public way to replace one. A scheme of our own would leave out
    folders that are given with `--config-dir`, which Hydra always takes for `file://`.
    """
    OmegaConf.register_new_resolver("cases", _choose, replace=True)
    Plugins.instance()  # registers Hydra's own sources
    SourcesRegistry.instance().types[FileConfigSource.scheme()] = FileConfigSource


def with_cases(file: DictConfig, where: str, names: Callable[[str], set[str]]) -> DictConfig:
    """Return the content of a file with its cases worked into the values that they set.

    Args:
        file: the content.
        where: the file's name, for errors.
        names: known names of a group, "rule", "task" or "schedule".

    Raises:
        ConfigError: a block that names a case or a value that there is not, or sets a name.
    """
    content = OmegaConf.to_container(file)
    assert isinstance(content, dict)
    blocks = {key: content.pop(key) for key in list(content) if key in BLOCKS}
    changed = dict.fromkeys(_keys(blocks, where, names))
    for key in changed:
        if re.fullmatch(r"(\w+\.)?name", key):
            raise ConfigError(f"{where}: a case sets '{key}'; what is trained may depend on no case")
        *parents, last = key.split(".")
        holder: Any = content
        for parent in parents:
            holder = holder.get(parent) if isinstance(holder, dict) else None
        if not isinstance(holder, dict) or last not in holder:
            raise ConfigError(f"{where}: a case sets '{key}', which has no plain value in this file")
        holder[last] = f"${{cases:{_argument({_PLAIN: holder[last], **_restricted(blocks, key)})}}}"
    return OmegaConf.create(content)


def _keys(settings: Any, where: str, names: Callable[[str], set[str]]) -> Iterator[str]:
    """Yield every key that a mapping of settings and blocks sets, with its cases checked."""
    for key, value in settings.items():
        if key not in BLOCKS:
            yield key
            continue
        if not isinstance(value, dict) or not all(isinstance(case, dict) for case in value.values()):
            raise ConfigError(f"{where}: {key} must map cases to settings")
        group = key.removeprefix("by_")
        known = {*REDUCED} if group == "scale" else names(group)
        for case, inner in value.items():
            if case != _OTHER and not any(fnmatchcase(name, str(case)) for name in known):
                raise ConfigError(f"{where}: {key}: unknown {group} '{case}'; known: {', '.join(sorted(known))}")
            yield from _keys(inner, where, names)


def _restricted(settings: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Select what settings say of one key, in the form that `_choose` reads."""
    found = {_PLAIN: settings[key]} if key in settings else {}
    for block in (name for name in settings if name in BLOCKS):
        cases = {case: _restricted(inner, key) for case, inner in settings[block].items()}
        if any(cases.values()):  # a case that is silent still keeps `other` from applying
            found[block] = cases
    return found


def _choose(settings: Mapping[str, Any] | str, *, _root_: DictConfig) -> Any:
    """Return the value for the rule, task, schedule and scale of the configuration that holds the interpolation."""
    _, value = _chosen(json.loads(settings) if isinstance(settings, str) else settings, _root_)
    return value


def _chosen(settings: Mapping[str, Any], root: DictConfig) -> tuple[bool, Any]:
    """Return whether settings decide the value, and the value."""
    decided, value = _PLAIN in settings, settings.get(_PLAIN)
    for block in (name for name in settings if name in BLOCKS):
        name, cases = str(OmegaConf.select(root, BLOCKS[block])), settings[block]
        fitting = (case for case in cases if fnmatchcase(name, str(case)))
        case = name if name in cases else next(fitting, _OTHER)
        if case in cases:
            here, inner = _chosen(cases[case], root)
            decided, value = (True, inner) if here else (decided, value)
    return decided, value


def names_of(group: str, folder: Path = CONFIG_DIR) -> set[str]:
    """List a group's choices: files of the suite, of the user's folders and of `folder`, and those stored by code."""
    files = {*config_files(group), *(file.stem for file in (folder / group).glob("*.yaml"))}
    try:
        stored = ConfigStore.instance().list(group)
    except OSError:  # the group is not there
        stored = []
    return files | {name.removesuffix(".yaml") for name in stored}


def _argument(settings: Mapping[str, Any]) -> str:
    """Write settings as a string of JSON where that is possible: OmegaConf reads it faster than its own grammar."""
    text = json.dumps(settings)
    plain = "${" not in text and json.loads(text) == settings
    return _literal(text if plain else settings)


def _literal(value: Any) -> str:
    """Write a value in OmegaConf's grammar of interpolations."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_literal(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_literal, value)) + "]"
    if isinstance(value, str):
        if re.fullmatch(r"\$\{.*\}", value):  # an interpolation keeps the type of what it refers to
            return value
        return f"'{escaped(value)}'"
    return json.dumps(value)
