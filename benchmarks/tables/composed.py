"""Configurations of a table's runs: composed once, and kept in the cache folder for the next command."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import hydra
import omegaconf

from benchmarks import config as composer
from benchmarks.config import (
    SOURCES,
    Config,
    ModelConfig,
    OptimizerConfig,
    RuleConfig,
    RunSettings,
    ScheduleConfig,
    TaskConfig,
    TrainerConfig,
    compose_config,
    register,
    resolve,
    to_dict,
)
from benchmarks.utils import config_cases
from benchmarks.utils.config_files import TooMany, config_checksum, config_environment
from benchmarks.utils.files import write_text
from benchmarks.utils.paths import cache_dir
from benchmarks.utils.progress import with_bar

Asked = tuple[tuple[str, ...], int]
"""The overrides of a run, and for how many seeds it is wanted, from 0 on."""

MOST_KEPT = 200
"""Files in the cache; the oldest make room."""

_PARTS = {
    "task": TaskConfig,
    "model": ModelConfig,
    "rule": RuleConfig,
    "optimizer": OptimizerConfig,
    "schedule": ScheduleConfig,
    "trainer": TrainerConfig,
    "run": RunSettings,
}


def composed_runs(asked: Sequence[Asked], title: str) -> list[list[Config]]:
    """Compose and resolve the configurations of runs, each for its seeds.

    Args:
        asked: the runs.
        title: what they belong to, for the progress bar.

    Raises:
        ConfigError, hydra.errors.HydraException, omegaconf.errors.OmegaConfBaseException: a run that does not exist.
    """
    store = _store(asked)
    if store is not None and (kept := _read(store)) is not None:
        return kept
    composed = with_bar(lambda run: _compose(*run), asked, f"composing {title}")
    if store is not None:
        _keep(store, composed)
    return composed


def on_every_source(configs: Iterable[Config]) -> Iterator[Config]:
    """Yield runs on real and on generated data: which of them were there when a run was recorded is no longer known."""
    for config in configs:
        for source in SOURCES:
            yield replace(config, task=replace(config.task, source=source))


def _compose(overrides: Sequence[str], seeds: int) -> list[Config]:
    """Resolve a configuration for the first and the last seed, and fill in the others where only the seed differs."""
    composed = compose_config(overrides)

    def resolved(seed: int) -> Config:
        composed.seed = seed
        return resolve(composed)

    if seeds > 2:
        first, last = resolved(0), resolved(seeds - 1)
        filled = [_config(_with_seed(to_dict(first), to_dict(last), seed)) for seed in range(seeds)]
        if filled[0] == first and filled[-1] == last:
            return filled
    return [resolved(seed) for seed in range(seeds)]


def _with_seed(first: Any, last: Any, seed: int) -> Any:
    """Copy values that two configurations have in common, and put a seed where they differ."""
    if isinstance(first, dict) and isinstance(last, dict) and first.keys() == last.keys():
        return {key: _with_seed(first[key], last[key], seed) for key in first}
    if isinstance(first, list) and isinstance(last, list) and len(first) == len(last):
        return [_with_seed(*pair, seed) for pair in zip(first, last, strict=True)]
    return seed if first != last else first


def _store(asked: Sequence[Asked]) -> Path | None:
    """Return the file for what is asked, named by all that determines the answer; None where that is too much."""
    register()  # the schema counts, too
    try:
        files, environment = config_checksum(), config_environment()
    except TooMany:
        return None
    if any("oc." in override for overrides, _ in asked for override in overrides):
        return None  # it may refer to anything
    home = str(Path("~").expanduser())
    content = [hydra.__version__, omegaconf.__version__, _composing_code(), home, files, environment, asked]
    key = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]
    return cache_dir() / "composed" / f"{key}.json"


@cache
def _composing_code() -> str:
    """Return a checksum of the code that composes and checks configurations."""
    files = [Path(composer.__file__), *sorted(Path(config_cases.__file__).parent.glob("*.py"))]
    return _checksum("\0".join(path.read_text(encoding="utf-8") for path in files))


def _read(store: Path) -> list[list[Config]] | None:
    """Return what is kept; None where nothing is, or not what was written."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        checksum, content = store.read_text(encoding="utf-8").split("\n", 1)
        if checksum == _checksum(content):
            return _parsed(content)
    return None


def _keep(store: Path, runs: list[list[Config]]) -> None:
    """Keep configurations; where that is not possible, they are composed again the next time."""
    content = json.dumps([[to_dict(config) for config in seeds] for seeds in runs])
    if _parsed(content) != runs:  # values that JSON does not have, such as keys that are numbers
        return
    with suppress(OSError):
        write_text(store, f"{_checksum(content)}\n{content}")
        by_age = sorted(store.parent.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
        for path in by_age[:-MOST_KEPT]:
            path.unlink(missing_ok=True)


def _parsed(content: str) -> list[list[Config]]:
    return [[_config(config) for config in seeds] for seeds in json.loads(content)]


def _config(content: dict[str, Any]) -> Config:
    return Config(**{key: _PARTS[key](**value) if key in _PARTS else value for key, value in content.items()})


def _checksum(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()
