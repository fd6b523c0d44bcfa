"""Check that the parts a configuration names belong together, and that its files choose what they are called after.

A copy of `configs/rule/dfa.yaml` under the name of a new rule would otherwise train DFA under that name.
"""

import re
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from benchmarks.config import Config
from benchmarks.errors import ConfigError
from benchmarks.registry import MODELS, TASKS
from benchmarks.run.optim import OPTIMIZERS, SCHEDULES
from benchmarks.utils.paths import FAMILIES, config_files
from benchmarks.utils.yaml_files import read_yaml
from dfa import RULES
from dfa.registry import Registry


def chosen_parts(config: Config) -> tuple[tuple[Registry[Any], str], ...]:
    """Return what a run is made of: registries, which plug-ins can add to, and the name that it takes from each."""
    return (
        (TASKS, config.task.name),
        (MODELS, config.model.name),
        (RULES, config.rule.name),
        (OPTIMIZERS, config.optimizer.name),
        (SCHEDULES, config.schedule.name),
    )


def check_names(config: Config) -> None:
    """Check the files that name the run's parts; the run's plug-ins have to be loaded.

    A composed configuration does not tell which file it came from, so every file of that content counts.

    Raises:
        ConfigError: a file is called after something else that is registered.
    """
    for registry, name in chosen_parts(config):
        group = registry.kind
        for stem, path in config_files(group).items():
            if stem != name and stem in registry and _name_in(path, group) == name:
                raise ConfigError(
                    f"'{path}' says `name: {name}`, but there is a {group} '{stem}': "
                    f"write `name: {stem}`, or rename the file"
                )


def check_family(config: Config) -> None:
    """Check that a model is one for tasks of the task's family; plug-ins may hold models for any.

    Raises:
        ConfigError: it is of another family.
    """
    family, owner = config.task.family, family_of_model(config.model.name)
    if config.plugins or family is None or owner in ("", family) or not (FAMILIES / family).exists():
        return
    fitting = (
        stem for stem, path in config_files("model").items() if family_of_model(_name_in(path, "model")) == family
    )
    raise ConfigError(
        f"model '{config.model.name}' is for tasks of {_in_words(owner)}, "
        f"'{config.task.name}' is one of {_in_words(family)}: choose model={'|'.join(fitting)}"
    )


@cache
def family_of_model(name: str) -> str:
    """Return the family whose file of models registers one, "" where none does; nothing is imported."""
    for path in sorted(FAMILIES.glob("*/models.py")):
        if re.search(rf'^@?MODELS\.register\("{re.escape(name)}"\)', path.read_text(encoding="utf-8"), re.MULTILINE):
            return path.parent.name
    return ""


def _in_words(family: str) -> str:
    return family.replace("_", " ")


def _name_in(path: Path, group: str) -> str:
    """Return the name that a file of a group chooses, itself or through those it builds on; "" where it has none."""
    seen: set[Path] = set()
    while path not in seen and path.exists():
        seen.add(path)
        name, built_on = _name_and_base(path, group, path.stat().st_mtime_ns)
        if name or not built_on:
            return name
        path = config_files(group).get(built_on, path.parent / f"{built_on}.yaml")
    return ""


@lru_cache(maxsize=1024)
def _name_and_base(path: Path, group: str, changed: int) -> tuple[str, str]:
    """Return the name in a file and the last of the files that it builds on; `changed` has a new file read again."""
    try:
        content = read_yaml(path, path.name)
    except ConfigError:
        return "", ""  # whoever chooses it is told
    if not isinstance(content, dict):
        return "", ""
    inner = content.get(group, content)  # models set values of other groups, too
    name = str(inner.get("name", "")) if isinstance(inner, dict) else ""
    bases = [base for base in content.get("defaults") or [] if isinstance(base, str) and base != "_self_"]
    return name, bases[-1] if bases else ""
