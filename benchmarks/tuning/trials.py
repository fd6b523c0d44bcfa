"""Trials of a table's learning rates: every cell with each of a few, and which of these are needed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from omegaconf import DictConfig

from benchmarks.config import SCALES, Config, compose_config, identity, resolve
from benchmarks.errors import ConfigError
from benchmarks.run.inputs import current_record
from benchmarks.run.record_schema import Record
from benchmarks.tables.cells import Cell
from benchmarks.tables.missing_data import missing_data, settle_data
from benchmarks.tables.plan import check_settings
from benchmarks.tables.schema import Rates, matches
from benchmarks.tables.spec import TableSpec
from benchmarks.utils.overrides import key_of
from benchmarks.utils.values import check_known


@dataclass(frozen=True)
class Trial:
    """Cell with one learning rate.

    Attributes:
        factor: of the configured rate.
        rate: the rate itself.
        configs: its runs, one for each that the cell averages over and each seed that decides.
        records: of those that had one when they were read last, see `with_records`.
    """

    cell: Cell
    factor: float
    rate: float
    configs: Sequence[Config]
    records: Sequence[Record] = ()

    @property
    def is_over(self) -> bool:
        """Return whether all of its runs have a record."""
        return len(self.records) == len(self.configs)

    @property
    def value(self) -> float | None:
        """Return the mean of the best validation metrics; None unless all runs finished."""
        values = [float(record["best_valid"]) for record in self.records if record["status"] == "done"]
        return float(np.mean(values)) if len(values) == len(self.configs) else None


def with_records(trials: Sequence[Trial]) -> list[Trial]:
    """Read the records of all runs, each once; one made with other data or plug-ins than those of now is none.

    Raises:
        ConfigError: a plug-in that cannot be imported.
    """
    found = {identity(config): current_record(config) for config in runs_of(trials)}

    def of_runs(configs: Sequence[Config]) -> list[Record]:
        return [record for config in configs if (record := found[identity(config)]) is not None]

    return [replace(trial, records=of_runs(trial.configs)) for trial in trials]


def make_trials(spec: TableSpec, scale: str, settings: Sequence[str] = ()) -> list[Trial]:
    """Compose the trials of every cell with every rate; of the cells of further rules alone where there are any.

    They have no records yet.

    Raises:
        ConfigError: an unknown scale, a table without rates or with nothing to run, or data that are missing.
    """
    check_known("scale", scale, SCALES)
    rates = rates_of(spec)
    check_settings(spec, [*settings])
    if any(key_of(item) == "optimizer.lr" for item in settings):
        raise ConfigError("optimizer.lr is what is chosen here; it cannot be set")
    trials = []
    for cell in [cell for cell in spec.cells if cell.extra_rule] or spec.cells:
        if rates.column not in ("", cell.column):
            continue
        runs = replace(cell, chosen=()).runs_at(scale)
        shared = [f"scale={scale}", f"run.wandb_group=tune {spec.name}", *rates.settings.get(scale, ()), *settings]
        composed = [compose_config([*overrides, *shared]) for overrides in runs]
        for factor in rates.factors if runs else ():
            configs = [_config(run, seed, factor, spec.stand_in) for run in composed for seed in _seeds(rates, cell)]
            trials.append(Trial(cell, factor, float(configs[0].optimizer.lr), configs))
    if not trials:
        raise ConfigError(f"{spec.heading} has no runs at scale {scale}")
    return trials


def rates_of(spec: TableSpec) -> Rates:
    """Return what a table's file says of its learning rates.

    Raises:
        ConfigError: the file has no entry `rates`.
    """
    rates = spec.file.rates
    if rates is None:
        raise ConfigError(f"table file {spec.name}.yaml names no `rates` to try")
    assert isinstance(rates, Rates)
    return rates


def _seeds(rates: Rates, cell: Cell) -> range:
    """Return the seeds that decide a cell's rate."""
    count = next((count for pattern, count in rates.seeds.items() if matches(pattern, cell.row, cell.name)), 1)
    return range(rates.seed, rates.seed + count)


def _config(composed: DictConfig, seed: int, factor: float, stand_in: bool) -> Config:
    varied = composed.copy()
    varied.seed, varied.optimizer.lr = seed, float(f"{composed.optimizer.lr * factor:.3g}")
    config = resolve(varied)
    if missing := settle_data(config, missing_data(config), stand_in):
        raise ConfigError(missing)
    return config


def reached(of_cell: Sequence[Trial], walk: bool) -> list[Trial]:
    """Return the trials of a cell that take part, as far as known by now; see `Rates.walk`.

    Which ones that are depends on their values alone, and not on what else has been run.
    """
    ordered = sorted(of_cell, key=lambda trial: trial.factor)
    if not walk:
        return ordered
    middle = len(ordered) // 2
    low, high = max(0, middle - 1), min(len(ordered), middle + 2)
    while all(trial.is_over for trial in ordered[low:high]):
        kept = best(ordered[low:high])
        at = low if kept is None else ordered.index(kept)  # where all diverge, smaller ones may not
        wider = max(0, min(low, at - 1)), min(len(ordered), max(high, at + 2))
        if wider == (low, high):
            break
        low, high = wider
    return ordered[low:high]


def taking_part(trials: Sequence[Trial], walk: bool) -> list[Trial]:
    """Return the trials of every cell that take part, see `reached`."""
    return [trial for of_cell in by_cell(trials).values() for trial in reached(of_cell, walk)]


def best(trials: Sequence[Trial]) -> Trial | None:
    """Return the best of a cell's trials, of equals the one nearest to the configured rate; None if none finished."""
    finished = [trial for trial in trials if trial.value is not None]
    if not finished:
        return None
    sign = -1.0 if finished[0].records[0]["higher_is_better"] else 1.0
    return min(finished, key=lambda trial: (sign * (trial.value or 0.0), abs(np.log(trial.factor))))


def runs_of(trials: Sequence[Trial]) -> list[Config]:
    """List the runs of trials, each once."""
    return list({identity(config): config for trial in trials for config in trial.configs}.values())


def records_of(trials: Sequence[Trial]) -> list[Record]:
    """List the records of trials, that of each run once."""
    return list({record["config_hash"]: record for trial in trials for record in trial.records}.values())


def by_cell(trials: Sequence[Trial]) -> dict[Cell, list[Trial]]:
    """Group trials by cell."""
    groups: dict[Cell, list[Trial]] = {}
    for trial in trials:
        groups.setdefault(trial.cell, []).append(trial)
    return groups
