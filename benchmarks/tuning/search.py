"""Search for the settings that do best on validation: Optuna proposes them, the suite runs and records them.

Nothing is kept but the runs' records. Proposals follow from the sampler's seed and from what came of those before, so a
search that is begun again asks for the same runs, finds them recorded, and goes on where it was ended; with more trials
it goes further. (A sampler taken up from a stored study would draw its first numbers once more.)
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from omegaconf import OmegaConf

from benchmarks.config import Config, compose_config, identity, resolve
from benchmarks.errors import ConfigError
from benchmarks.launchers import launch
from benchmarks.run.record_schema import first_measured
from benchmarks.run.records import RunFolder
from benchmarks.tuning.search_report import CONFIGURED, Axis, Search, Tried, check_same_search, search_folder
from benchmarks.tuning.spaces import axes_of, load_optuna
from benchmarks.utils.values import check_name

_DIGITS = 3  # of a proposed number: more would be noise

Proposals: TypeAlias = Mapping[int, Mapping[str, Any]]
"""Number of a trial → its settings."""


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
    optuna = load_optuna()
    composed = compose_config(choice)
    configured = resolve(composed)
    name = name or "-".join((configured.task.name, configured.model.name, configured.rule.name, configured.scale))
    axes = axes_of(space, composed, choice)
    held = [item for item in choice if not item.startswith(("run.", "launcher"))]
    if not force:
        check_same_search(search_folder(choice) / f"{name}.md", held, axes)
    trials = _Trials(name, choice, effort, configured.launcher)
    as_configured = trials.run({CONFIGURED: {key: OmegaConf.select(composed, key) for key in axes}})
    measured = first_measured(as_configured[0].records)
    if measured is None:
        raise ConfigError(f"the settings as configured come to no evaluation: {as_configured[0].records[0]['reason']}")
    proposed = _propose(axes, effort, bool(measured["higher_is_better"]), trials.run)
    sampling = (
        f"Optuna {optuna.__version__}, tree-structured Parzen estimator, seed {effort.sampler_seed},"
        f" {effort.at_once} proposals at a time"
    )
    return Search(name, held, axes, sampling, effort.seeds, [*as_configured, *proposed])


def _propose(
    axes: Mapping[str, Axis], effort: Effort, higher_is_better: bool, run: Callable[[Proposals], list[Tried]]
) -> list[Tried]:
    """Let Optuna propose settings, some at a time, and tell it what came of them."""
    optuna = load_optuna()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(seed=effort.sampler_seed, constant_liar=True)
    study = optuna.create_study(direction="maximize" if higher_is_better else "minimize", sampler=sampler)
    tried: list[Tried] = []
    while (left := effort.trials - len(study.trials)) > 0:
        asked = [study.ask(dict(axes)) for _ in range(min(left, effort.at_once))]
        proposals = {trial.number + 1: {key: _rounded(trial.params[key]) for key in axes} for trial in asked}
        for trial, result in zip(asked, run(proposals), strict=True):
            tried.append(result)
            failed = None if result.complete(effort.seeds) else optuna.trial.TrialState.FAIL
            study.tell(trial, None if failed else result.mean, failed)
    return tried


@dataclass(frozen=True)
class _Trials:
    """Runs of proposed settings.

    Attributes:
        name: of the search.
        choice: overrides that all runs share.
        effort: how many seeds each proposal gets.
        launcher: settings of what carries the runs out.
    """

    name: str
    choice: Sequence[str]
    effort: Effort
    launcher: Mapping[str, Any]

    def run(self, proposals: Proposals) -> list[Tried]:
        """Run proposals, those that are recorded already excepted.

        Raises:
            ConfigError: one cannot be run.
        """
        runs = {number: self._configs(number, settings) for number, settings in proposals.items()}
        unique = {identity(config): config for configs in runs.values() for config in configs}
        reasons = {problem.run: problem.reason for problem in launch(list(unique.values()), dict(self.launcher))}
        found = []
        for number, configs in runs.items():
            records = [record for config in configs if (record := RunFolder.of(config).read()) is not None]
            if not records:  # what is wrong with one is wrong with all
                raise ConfigError(reasons.get(identity(configs[0]), "its runs left no record"))
            found.append(Tried(number, dict(proposals[number]), records))
        return found

    def _configs(self, number: int, settings: Mapping[str, Any]) -> list[Config]:
        """Compose a run for every seed; values are set as they are, for an override would be parsed."""
        composed = compose_config(self.choice)
        for key, value in settings.items() if number != CONFIGURED else ():
            OmegaConf.update(composed, key, value)
        composed.run.wandb_group = f"search {self.name}"
        configs = []
        for seed in range(self.effort.seeds):
            composed.seed, composed.run.wandb_name = seed, f"trial {number} seed {seed}"
            configs.append(resolve(composed))
        return configs


def _rounded(value: Any) -> Any:
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value
