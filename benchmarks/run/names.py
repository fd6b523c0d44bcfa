"""Names of runs in reports, which say what distinguishes them."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.config import CIRCUMSTANCES, Config, identity, to_dict
from benchmarks.utils.settings import flattened, varied
from benchmarks.utils.text import run_title


def choices(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return what one would choose for a better result, as flat settings: all but seeds and circumstances.

    Args:
        content: a configuration in dictionaries, as from `to_dict`.
    """
    settings = dict(flattened({key: value for key, value in content.items() if key not in CIRCUMSTANCES}))
    return {key: value for key, value in settings.items() if key not in ("seed", "rule.options.seed")}


def run_name(config: Config) -> str:
    """Name a run in a few words, as in reports."""
    return run_title(config.task.name, config.model.name, config.rule.name, config.seed)


def run_names(configs: Sequence[Config]) -> dict[str, str]:
    """Name runs by identity; those of one task, model and rule also by the settings in which they differ.

    A setting that a run has not, or that is null or empty, is left out: that the others have it tells them apart.
    """
    groups: dict[tuple[str, str, str], list[Config]] = {}
    for config in configs:
        groups.setdefault((config.task.name, config.model.name, config.rule.name), []).append(config)
    names: dict[str, str] = {}
    for members in groups.values():
        settings = [choices(to_dict(config)) for config in members]
        keys = varied(settings)
        for config, chosen in zip(members, settings, strict=True):
            words = [f"{key}={chosen[key]}" for key in keys if chosen.get(key) not in (None, {})]
            names[identity(config)] = ", ".join([run_name(config), *words])
    return names
