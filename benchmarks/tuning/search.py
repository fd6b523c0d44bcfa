"""Search for the settings that do best on validation: Optuna proposes them, the suite runs and records them.

Nothing is kept but the runs' records. Proposals follow from the sampler's seed and from what came of those before, so a
search that is begun again asks for the same runs, finds them recorded, and goes on where it was ended; with more trials
it goes further. (A sampler taken up from a stored study would draw its first numbers once more.)
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from benchmarks.config import Config, compose_config, identity, resolve
from benchmarks.errors import ConfigError
from benchmarks.launchers import launch
from benchmarks.run.record_schema import first_measured
from benchmarks.run.records import RunFolder
from benchmarks.tuning.search_report import CONFIGURED, Axis, Search, Tried, check_same_search, search_folder
from benchmarks.utils.overrides import key_of, without
from benchmarks.utils.paths import config_files
from benchmarks.utils.schema_keys import unknown_key
from benchmarks.utils.values import check_name, is_number
from benchmarks.utils.yaml_files import read_yaml

_DIGITS = 3  # of a proposed number: more would be noise
_ABSENT = object()


@dataclass(frozen=True)
class Effort:
    """Effort of a search.

    Attributes:
        trials: settings proposed.
        seeds: runs of each; their mean counts.
        at_once: proposals made before their results are known; part of what determines the search.
        sampler_seed: of the proposals.
    """

    trials: int = 20
    seeds: int = 1
    at_once: int = 4
    sampler_seed: int = 0


def known_spaces() -> list[str]:
    """List the names of the suite's and the user's own search spaces."""
    return list(config_files("search"))


def search(space: str, choice: Sequence[str], effort: Effort, name: str = "", force: bool = False) -> Search:
    """Try the settings as configured, then `effort.trials` that Optuna's tree-structured Parzen estimator proposes.

    Args:
        space: name of a file in `configs/search`, or path of another.
        choice: overrides that all runs share; a key of the space that is among them is not searched.
        effort: how much is tried.
        name: of the search; "" for task, model, rule and scale.
        force: go on where its report would replace that of another search.

    Raises:
        ConfigError: no Optuna, a space that cannot be read or leaves nothing to search, or runs that are impossible.
        ResultsError: there is a report of this name, of another space, other held settings or other data.
    """
    if not 0 <= effort.sampler_seed < 2**32:
        raise ConfigError(f"--sampler-seed must be from 0 to 2**32 - 1, got {effort.sampler_seed}")
    if name:
        check_name("--name", name)
    optuna = _optuna()
    composed = compose_config(choice)
    configured = resolve(composed)
    name = name or "-".join((configured.task.name, configured.model.name, configured.rule.name, configured.scale))
    axes = {
        key: axis
        for key, axis in read_space(space).items()
        if _is_there(composed, key, space) and without(choice, key) == tuple(choice)
    }
    if not axes:
        raise ConfigError(f"space '{space}': none of its keys is left to search here")
    if seeded := [item for item in (*choice, *axes) if key_of(item) == "seed"]:
        raise ConfigError(f"{seeded[0]}: a search runs each proposal with seeds 0 to n - 1 (--seeds)")
    held = [item for item in choice if not item.startswith(("run.", "launcher"))]
    if not force:
        check_same_search(search_folder(choice) / f"{name}.md", held, axes)

    def attempt(proposals: Mapping[int, Mapping[str, Any]]) -> list[Tried]:
        """Run proposals, by number."""
        runs = {number: _configs(name, number, settings, choice, effort) for number, settings in proposals.items()}
        unique = {identity(config): config for configs in runs.values() for config in configs}
        reasons = {problem.run: problem.reason for problem in launch(list(unique.values()), configured.launcher)}
        found = []
        for number, configs in runs.items():
            records = [record for config in configs if (record := RunFolder.of(config).read()) is not None]
            if not records:  # what is wrong with one is wrong with all
                raise ConfigError(reasons.get(identity(configs[0]), "its runs left no record"))
            found.append(Tried(number, dict(proposals[number]), records))
        return found

    as_configured = {key: OmegaConf.select(composed, key) for key in axes}
    tried = attempt({CONFIGURED: as_configured})
    measured = first_measured(tried[0].records)
    if measured is None:
        raise ConfigError(f"the settings as configured come to no evaluation: {tried[0].records[0]['reason']}")
    direction = "maximize" if measured["higher_is_better"] else "minimize"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(seed=effort.sampler_seed, constant_liar=True)
    study = optuna.create_study(direction=direction, sampler=sampler)
    while (left := effort.trials - len(study.trials)) > 0:
        asked = [study.ask(dict(axes)) for _ in range(min(left, effort.at_once))]
        proposals = {trial.number + 1: {key: _rounded(trial.params[key]) for key in axes} for trial in asked}
        for trial, result in zip(asked, attempt(proposals), strict=True):
            tried.append(result)
            failed = None if result.complete(effort.seeds) else optuna.trial.TrialState.FAIL
            study.tell(trial, None if failed else result.mean, failed)
    sampling = f"Optuna {optuna.__version__}, tree-structured Parzen estimator, seed {effort.sampler_seed}"
    sampling += f", {effort.at_once} proposals at a time"
    return Search(
        name,
        held,
        axes,
        sampling,
        effort.seeds,
        tried,
    )


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
    kinds = _optuna().distributions
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


def _configs(
    name: str, number: int, settings: Mapping[str, Any], choice: Sequence[str], effort: Effort
) -> list[Config]:
    """Compose a run of a proposal for every seed; values are set as they are, for an override would be parsed."""
    composed = compose_config(choice)
    for key, value in settings.items() if number != CONFIGURED else ():
        OmegaConf.update(composed, key, value)
    composed.run.wandb_group = f"search {name}"
    configs = []
    for seed in range(effort.seeds):
        composed.seed, composed.run.wandb_name = seed, f"trial {number} seed {seed}"
        configs.append(resolve(composed))
    return configs


def _rounded(value: Any) -> Any:
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise ConfigError("the search needs Optuna: pip install -e '.[search]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
