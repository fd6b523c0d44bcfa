"""Ranking of the recorded runs of a task, model and rule by their validation metric.

Runs that differ in nothing but the seed count as one entry, with their mean. Test scores are not shown, so that they
cannot be selected on.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from benchmarks.config import compose_config, identity_of, resolve
from benchmarks.errors import ConfigError, ResultsError
from benchmarks.run.config_names import check_family
from benchmarks.run.names import choices
from benchmarks.run.record_schema import DAMAGED, Record, first_measured, predicts_constant, read_record
from benchmarks.utils.overrides import key_of
from benchmarks.utils.settings import varied
from benchmarks.utils.text import code_title, mean_and_spread
from benchmarks.utils.yaml_files import read_yaml

GROUPS = ("task", "model", "rule")


@dataclass(frozen=True)
class Ranked:
    """Choice of settings.

    Attributes:
        settings: what distinguishes it from the others, e.g. {"optimizer.lr": 1e-4}.
        values: validation metric of every seed that finished, in the order of the seeds; empty where none did.
        unsuccessful: seeds that failed or diverged.
        constant: seeds that finished with a model that predicts the same for every example.
    """

    settings: Mapping[str, Any]
    values: tuple[float, ...]
    unsuccessful: int
    constant: int = 0


def rank_choice(choice: Sequence[str], top: int) -> tuple[str, list[Ranked]]:
    """Rank what overrides choose, see `rank`.

    Args:
        choice: overrides with task, model, rule and scale.
        top: entries to return at most.

    Raises:
        ConfigError: an override that sets something else, an unknown scale, or a model that is none for the task.
        ResultsError: no such run is recorded.
    """
    for item in choice:
        key = key_of(item)
        if key not in (*GROUPS, "scale", "plugins") and not key.startswith("run."):
            raise ConfigError(f"a ranking is of all runs of a task, model, rule and scale: leave out '{item}'")
    config = resolve(compose_config(choice))
    check_family(config)
    wanted = {group: str(getattr(config, group).name) for group in GROUPS}
    metric, ranked = rank(Path(config.run.results_dir), wanted, config.scale)
    return metric, ranked[:top]


def rank(results: Path, wanted: Mapping[str, str], scale: str) -> tuple[str, list[Ranked]]:
    """Return the validation metric's name, and all choices of settings recorded for `wanted`, the best mean first.

    A line on stderr tells where the runs are of different code.

    Args:
        results: folder that holds `runs`.
        wanted: "task", "model" and "rule".
        scale: of the runs that count.

    Raises:
        ResultsError: no such run is recorded.
    """
    found = list(_runs(results, wanted, scale))
    if not found:
        words = " ".join(f"{group}={name}" for group, name in wanted.items())
        raise ResultsError(f"no run of {words} at scale {scale} is recorded in {results}")
    code = sorted({code_title(record["commit"], record["git_dirty"]) for _, record in found})
    if len(code) > 1:
        print(f"warning: these runs are of different code, commits {', '.join(code)}", file=sys.stderr)
    groups: dict[str, list[tuple[dict[str, Any], Record]]] = {}
    for settings, record in found:
        groups.setdefault(json.dumps(settings, sort_keys=True, default=str), []).append((settings, record))
    keys = varied([members[0][0] for members in groups.values()])
    ranked = [_ranked(members, keys) for members in groups.values()]
    first = first_measured(record for _, record in found) or found[0][1]
    sign = -1 if first["higher_is_better"] else 1
    ranked.sort(key=lambda entry: sign * float(np.mean(entry.values)) if entry.values else float("inf"))
    return first["valid_metric"], ranked


def _runs(results: Path, wanted: Mapping[str, str], scale: str) -> Iterator[tuple[dict[str, Any], Record]]:
    """Read settings and record of each run at a scale; a line on stderr names what is damaged, and it is left out."""
    folder = results.joinpath("runs", *(wanted[group] for group in GROUPS))
    for path in sorted(folder.glob("*")):
        record = read_record(path / "result.json")
        if record is None:
            continue
        if record["status"] == DAMAGED:
            print(f"warning: left out: {record['reason']}", file=sys.stderr)
        elif record["scale"] == scale:
            try:
                yield _settings(path / "config.yaml", record), record
            except ConfigError as error:
                print(f"warning: left out: {error}", file=sys.stderr)


def _settings(path: Path, record: Record) -> dict[str, Any]:
    config = read_yaml(path, f"the configuration '{path}'")
    with suppress(KeyError, TypeError, AttributeError):
        if identity_of(config) == record["config_hash"]:
            return choices(config)
    raise ConfigError(f"the configuration '{path}' is not that of the run beside it")


def _ranked(members: Sequence[tuple[Mapping[str, Any], Record]], keys: Sequence[str]) -> Ranked:
    records = sorted((record for _, record in members), key=lambda record: int(record["seed"]))
    done = [record for record in records if record["status"] == "done"]
    values = tuple(float(record["best_valid"]) for record in done)
    dead = sum(map(predicts_constant, done))
    return Ranked({key: members[0][0].get(key) for key in keys}, values, len(records) - len(values), dead)


def show(metric: str, ranked: Sequence[Ranked]) -> str:
    """Format the ranking as a table; runs whose predictions are constant are counted where there are any."""
    headings = [*ranked[0].settings, f"valid {metric}", "seeds", "failed"]
    lines: list[list[Any]] = [
        [*entry.settings.values(), mean_and_spread(entry.values), len(entry.values), entry.unsuccessful]
        for entry in ranked
    ]
    if any(entry.constant for entry in ranked):
        headings.append("constant predictions")
        lines = [[*line, entry.constant] for line, entry in zip(lines, ranked, strict=True)]
    return tabulate(lines, headings, disable_numparse=True)
