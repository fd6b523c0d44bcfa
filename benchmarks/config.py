"""Configuration of a run: its schema, how it is composed, checked and identified."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from functools import cache, lru_cache
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError

from benchmarks.errors import ConfigError
from benchmarks.utils import config_cases
from benchmarks.utils.config_choices import Choices, check_choices, taken_apart
from benchmarks.utils.config_files import TooMany, config_checksum
from benchmarks.utils.config_words import check_groups
from benchmarks.utils.paths import CONFIG_DIR, own_plugins, search_path
from benchmarks.utils.schema_keys import check_keys
from benchmarks.utils.settings import beyond
from benchmarks.utils.values import check_count, check_known, check_name, check_number, expanded_folder

SCALES = (config_cases.PUBLISHED, *config_cases.REDUCED)
SOURCES = ("real", "stand_in")
CIRCUMSTANCES = ("run", "launcher", "plugins")
"""Parts of a configuration that say where and how a run is carried out, and not what it computes."""

_CHOICE = re.compile(r"[a-z]+=[\w-]+")
_VALUE = re.compile(r"(\+{0,2}|~)(seed|scale|plugins|(?!hydra\.)\w+(\.[\w-]+)+)=.*", re.DOTALL)


@dataclass
class TaskConfig:
    """Task, with its data: `family` is the package under `benchmarks` that registers it, null for a plug-in's task."""

    name: str = MISSING
    family: str | None = None
    source: str = "real"
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class ModelConfig:
    """Model and where a rule attaches to it: patterns of feedback points, of the error tensor, of silent cuts."""

    name: str = MISSING
    points: list[str] = field(default_factory=list)
    error_at: list[str] = field(default_factory=lambda: [""])
    silent: list[str] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class RuleConfig:
    """Training rule; `options` are its constructor's."""

    name: str = MISSING
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class OptimizerConfig:
    """Optimiser; weight decay falls on the parameters that match `decay_only`."""

    name: str = "adam"
    lr: float = 1e-3
    weight_decay: float = 0.0
    decay_only: list[str] = field(default_factory=lambda: ["**"])
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class ScheduleConfig:
    """Schedule of the learning rate."""

    name: str = "constant"
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class TrainerConfig:
    """Training loop.

    Attributes:
        epochs: at most so many passes over the training batches.
        steps: at most so many optimiser steps; null: no limit.
        evaluate_every: evaluate on validation after so many `evaluate_unit`s, and at the end.
        evaluate_unit: "epoch" or "step".
        selection: which weights are tested: "best" on validation or "last".
        patience: stop after so many evaluations without improvement; null: never.
        clip_norm: clip the gradient to this norm; null: no clipping.
        accumulate: batches per optimiser step.
        precision: "float32" or "bfloat16" (autocast).
        compile: run the model through torch.compile.
        threads: CPU threads; fixed, because the order of summation depends on it. null: all cores.
    """

    epochs: int = 1
    steps: int | None = None
    evaluate_every: int = 1
    evaluate_unit: str = "epoch"
    selection: str = "best"
    patience: int | None = None
    clip_norm: float | None = None
    accumulate: int = 1
    precision: str = "float32"
    compile: bool = False
    threads: int | None = 1


@dataclass
class RunSettings:
    """Circumstances of a run; nothing here changes its result, or is part of its identity."""

    results_dir: str = MISSING
    data_dir: str = MISSING
    download: bool = False
    device: str = "cpu"
    stages: int = 1
    wandb: str = "offline"
    wandb_group: str | None = None
    wandb_name: str | None = None
    progress: bool = True
    checkpoint_seconds: float = 60.0
    alignment: str = "end"
    retry: bool = False


@dataclass
class Config:
    """Configuration of one run."""

    task: TaskConfig = field(default_factory=TaskConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    rule: RuleConfig = field(default_factory=RuleConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    seed: int = 0
    scale: str = "paper"
    plugins: list[str] = field(default_factory=list)
    launcher: dict[str, Any] = field(default_factory=dict)
    run: RunSettings = field(default_factory=RunSettings)


def _sweeps(*, _root_: DictConfig) -> str:
    return expanded_folder("run.results_dir", _root_.run.results_dir) + "/runs/.sweeps"


@cache
def register() -> None:
    """Make the schema, and files with cases, known to Hydra; may be called again."""
    OmegaConf.register_new_resolver("sweeps", _sweeps, replace=True)
    config_cases.install()
    ConfigStore.instance().store(name="schema", node=Config)
    launcher = {"_target_": "hydra_plugins.dfa_benchmarks.SuiteLauncher"}
    ConfigStore.instance().store(group="hydra/launcher", name="suite", node=launcher)
    sweeper = {"_target_": "hydra_plugins.dfa_benchmarks.SuiteSweeper", "max_batch_size": None, "params": None}
    ConfigStore.instance().store(group="hydra/sweeper", name="suite", node=sweeper)


def compose_config(overrides: Sequence[str]) -> DictConfig:
    """Compose the configuration that the command line `overrides` give.

    What Hydra makes of the choices among them (`task=cora`) is remembered, and the values (`optimizer.lr=0.1`) are set
    in a copy of it, as Hydra does last of all.

    Raises:
        ConfigError: see `check_groups` and `check_choices`.
        hydra.errors.HydraException, omegaconf.errors.OmegaConfBaseException: an override that does not fit.
    """
    register()
    check_groups(overrides)
    config, choices = _chosen(overrides)
    check_choices(config, choices, overrides)
    return config


def _chosen(overrides: Sequence[str]) -> tuple[DictConfig, Choices]:
    if GlobalHydra.instance().is_initialized():  # inside a Hydra job: its own search path is the same
        return taken_apart(compose("config", overrides=list(overrides), return_hydra_config=True))
    values = [override for override in overrides if _VALUE.fullmatch(override)]
    choices = tuple(override for override in overrides if override not in values)
    parsed = OverridesParser.create().parse_overrides(values)
    if any(override.is_sweep_override() for override in parsed) or not all(map(_CHOICE.fullmatch, choices)):
        return _compose(overrides)
    try:
        config, chosen = deepcopy(_composed(choices, config_checksum()))
    except TooMany:
        return _compose(overrides)
    ConfigLoaderImpl._apply_overrides_to_config(parsed, config)
    return config, chosen


@lru_cache(maxsize=512)
def _composed(choices: tuple[str, ...], checksum: str) -> tuple[DictConfig, Choices]:
    """Compose choices; `checksum` is that of all configuration files, so that a changed file is read again."""
    return _compose(choices)


def _compose(overrides: Sequence[str]) -> tuple[DictConfig, Choices]:
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        return taken_apart(compose("config", overrides=[*overrides, *search_path()], return_hydra_config=True))


def resolve(config: DictConfig) -> Config:
    """Resolve every interpolation, check values that the types leave open, and return the typed configuration.

    Raises:
        ConfigError: a key outside of the schema, a value that is not among the known ones, or one that refers to an
            option that the task lacks.
    """
    check_keys(config)
    check_known("scale", config.scale, SCALES)  # first, since other values depend on it
    try:
        resolved = OmegaConf.to_object(config)
    except InterpolationKeyError as error:
        raise ConfigError(_misfit(config, str(error))) from None
    assert isinstance(resolved, Config)
    resolved.plugins = list(dict.fromkeys([*own_plugins(), *resolved.plugins]))
    check_known("task.source", resolved.task.source, SOURCES)
    check_known("trainer.selection", resolved.trainer.selection, ("best", "last"))
    check_known("trainer.evaluate_unit", resolved.trainer.evaluate_unit, ("epoch", "step"))
    check_known("trainer.precision", resolved.trainer.precision, ("float32", "bfloat16"))
    check_known("run.wandb", resolved.run.wandb, ("offline", "online", "disabled"))
    check_known("run.alignment", resolved.run.alignment, ("end", "evaluations"))
    _check_values(resolved)
    resolved.run.results_dir = expanded_folder("run.results_dir", resolved.run.results_dir)
    resolved.run.data_dir = expanded_folder("run.data_dir", resolved.run.data_dir)
    return resolved


def _check_values(config: Config) -> None:
    for name in ("epochs", "steps", "evaluate_every", "patience", "accumulate"):
        check_count(f"trainer.{name}", getattr(config.trainer, name))
    check_count("trainer.threads", config.trainer.threads, 1024)
    check_count("run.stages", config.run.stages)
    check_number("trainer.clip_norm", config.trainer.clip_norm)
    check_number("optimizer.lr", config.optimizer.lr)
    check_number("optimizer.weight_decay", config.optimizer.weight_decay, zero=True)
    check_number("run.checkpoint_seconds", config.run.checkpoint_seconds, zero=True)
    if not 0 <= config.seed < 2**32:
        raise ConfigError(f"seed must be from 0 to 2**32 - 1, got {config.seed}")
    for group, chosen in (("task", config.task), ("model", config.model), ("rule", config.rule)):
        check_name(f"{group}.name", chosen.name)
    if strange := [name for name in (*config.model.points, *config.model.silent) if not name or type(name) is not str]:
        raise ConfigError(f"model.points and model.silent must name modules inside the model, got {strange[0]!r}")


def _misfit(config: DictConfig, message: str) -> str:
    """Explain OmegaConf's message about a reference to a missing key: mostly a model made for other tasks."""
    missing = re.search(r"key '(task\..+)' not found", message)
    if missing is None:
        return message.splitlines()[0]
    return f"model '{config.model.name}' does not fit task '{config.task.name}': there is no {missing[1]}"


def identity(config: Config) -> str:
    """Return a hash of all that determines a run's result: the configuration without the settings of its execution.

    Values equal to the schema's defaults are left out, so that a new field does not orphan earlier records, and so are
    options of a rule that are null, which is what they are when they are not given.
    """
    return identity_of(to_dict(config))


def identity_of(content: Mapping[str, Any]) -> str:
    """Return the identity of a run whose resolved configuration is at hand as dictionaries: a hash, nothing composed.

    Args:
        content: see `to_dict`; parts that are absent are as by default.
    """
    options = {key: value for key, value in content["rule"]["options"].items() if value is not None}
    content = beyond({**content, "rule": {**content["rule"], "options": options}}, _defaults())
    kept = {key: value for key, value in content.items() if key not in CIRCUMSTANCES}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:12]


@cache
def _defaults() -> dict[str, Any]:
    return to_dict(Config())


def to_dict(config: Config) -> dict[str, Any]:
    """Convert a configuration to plain dictionaries and lists."""
    return asdict(config)


def from_dict(content: dict[str, Any]) -> Config:
    """Build a configuration from dictionaries; the inverse of `to_dict`, type-checked."""
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), content))
    assert isinstance(config, Config)
    return config
