"""Check that the parts a configuration names belong together, and that its files choose what they are called after.

A copy of `configs/rule/dfa.yaml` under the name of a new rule would otherwise train DFA under that name.
"""

import re
from functools import cache
from typing import Any

from benchmarks.config import Config
from benchmarks.errors import ConfigError
from benchmarks.registry import MODELS, TASKS
from benchmarks.run.optim import OPTIMIZERS, SCHEDULES
from benchmarks.utils.config_choices import name_in
from benchmarks.utils.paths import CONFIG_DIR, FAMILIES, config_files
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
        ConfigError: a file is called after something else that is registered, or a name of the user's own is not.
    """
    for registry, name in chosen_parts(config):
        group = registry.kind
        if name not in registry and (own := config_files(group).get(name)) and CONFIG_DIR not in own.parents:
            raise ConfigError(
                f"{group} '{name}', which '{own}' names, is registered nowhere: list the file of its code in"
                " plugins.yaml of that folder, or give it as plugins=[FILE]"
            )
        for stem, path in config_files(group).items():
            if stem != name and stem in registry and name_in(f"{group}/{stem}", group) == name:
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
    fitting = (stem for stem in config_files("model") if family_of_model(name_in(f"model/{stem}", "model")) == family)
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
