"""The learning rates of a table: every cell is tried with the same few, and the best on validation is kept.

The runs that decide have a seed of their own and are recorded like any others, so a search that was ended goes on. Test
scores are not looked at.
"""

import argparse
import csv
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from omegaconf import DictConfig
from tabulate import tabulate

from benchmarks.cells import Cell
from benchmarks.chosen import read_chosen, write_chosen
from benchmarks.commands import EXIT_DONE, EXIT_RUNS_FAILED, guarded
from benchmarks.config import SCALES, Config, compose_config, identity, resolve
from benchmarks.errors import ConfigError
from benchmarks.files import write_result
from benchmarks.footers import describe_rates, duration
from benchmarks.launchers import launch
from benchmarks.launchers.report import Problem
from benchmarks.plan import missing_data, settle_data
from benchmarks.records import Record, RunFolder, first_measured
from benchmarks.tablefile import TABLE_FOLDER, Rates, matches
from benchmarks.tablespec import TableSpec, load_spec


@dataclass(frozen=True)
class Trial:
    """A cell with one learning rate.

    Attributes:
        factor: of the configured rate.
        rate: the rate itself.
        configs: its runs, one for each that the cell averages over and each seed that decides.
    """

    cell: Cell
    factor: float
    rate: float
    configs: Sequence[Config]

    @property
    def records(self) -> list[Record]:
        """Of the runs that have one."""
        return [record for config in self.configs if (record := RunFolder.of(config).read()) is not None]

    @property
    def is_over(self) -> bool:
        """Whether all of its runs have a record."""
        return len(self.records) == len(self.configs)

    @property
    def value(self) -> float | None:
        """Mean of the best validation metrics; None unless all runs finished."""
        values = [float(record["best_valid"]) for record in self.records if record["status"] == "done"]
        return float(np.mean(values)) if len(values) == len(self.configs) else None


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `scripts/tune.py`."""
    options = make_parser().parse_args(arguments)

    def command() -> int:
        spec = load_spec(options.table.replace("-", "_").lower(), folder=TABLE_FOLDER)
        jobs = [] if options.jobs is None else [f"launcher.jobs={options.jobs}"]
        trials = make_trials(spec, options.scale, [*options.set, *jobs])
        print(describe(spec, trials, options.scale), flush=True)
        if options.dry:
            return EXIT_DONE
        walk = rates_of(spec).walk
        problems = _try(trials, walk)
        trials = taking_part(trials, walk)
        results = Path(trials[0].configs[0].run.results_dir) / "search"
        written = [*_write_report(spec, trials, options.scale, results), _keep(spec, trials, options.scale)]
        print(f"\n{to_markdown(spec, trials, options.scale)}\nwritten: {', '.join(map(str, written))}")
        return EXIT_RUNS_FAILED if problems else EXIT_DONE

    sys.exit(guarded(command))


def make_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = argparse.ArgumentParser(prog="tune", description=__doc__)
    parser.add_argument("table", help="a table whose file has `rates`, e.g. table_6")
    parser.add_argument("--scale", default="mini", help="paper | mini (default) | smoke")
    parser.add_argument("--jobs", type=int, help="runs at once (default: one per core)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override for every run")
    parser.add_argument("--dry", action="store_true", help="say what would be run and stop")
    return parser


def make_trials(spec: TableSpec, scale: str, settings: Sequence[str] = ()) -> list[Trial]:
    """Every cell with every rate.

    Raises:
        ConfigError: an unknown scale, a table without rates or with nothing to run, or data that are missing.
    """
    if scale not in SCALES:
        raise ConfigError(f"unknown scale '{scale}'; known: {', '.join(SCALES)}")
    rates = rates_of(spec)
    trials = []
    for cell in spec.cells:
        if rates.column not in ("", cell.column):
            continue
        runs = Cell(cell.row, cell.column, cell.overrides, members=cell.members, only=cell.only).runs_at(scale)
        shared = [f"scale={scale}", f"run.wandb_group=tune {spec.name}", *rates.settings.get(scale, ()), *settings]
        composed = [compose_config([*overrides, *shared]) for overrides in runs]
        for factor in rates.factors if runs else ():
            configs = [_config(run, seed, factor, spec.stand_in) for run in composed for seed in _seeds(rates, cell)]
            trials.append(Trial(cell, factor, float(configs[0].optimizer.lr), configs))
    if not trials:
        raise ConfigError(f"{spec.heading} has no runs at scale {scale}")
    return trials


def rates_of(spec: TableSpec) -> Rates:
    """What a table's file says of its learning rates.

    Raises:
        ConfigError: nothing.
    """
    rates = spec.file.rates
    if rates is None:
        raise ConfigError(f"table file {spec.name}.yaml names no `rates` to try")
    assert isinstance(rates, Rates)
    return rates


def _seeds(rates: Rates, cell: Cell) -> range:
    """Those that decide a cell's rate."""
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
    """The trials of a cell that take part, as far as is known by now; see `Rates.walk`.

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


def _try(trials: Sequence[Trial], walk: bool) -> list[Problem]:
    """Run what takes part and has no record, until nothing is left to be tried."""
    problems: list[Problem] = []
    attempted: set[str] = set()
    while due := [run for run in _unique(taking_part(trials, walk)) if identity(run) not in attempted]:
        attempted |= {identity(run) for run in due}
        problems += launch(due, due[0].launcher)
    return problems


def taking_part(trials: Sequence[Trial], walk: bool) -> list[Trial]:
    """Those of every cell that take part, see `reached`."""
    return [trial for of_cell in _by_cell(trials).values() for trial in reached(of_cell, walk)]


def best(trials: Sequence[Trial]) -> Trial | None:
    """The best of a cell's trials, the rate nearest to the configured one among equals; None where none finished."""
    finished = [trial for trial in trials if trial.value is not None]
    if not finished:
        return None
    sign = -1.0 if finished[0].records[0]["higher_is_better"] else 1.0
    return min(finished, key=lambda trial: (sign * (trial.value or 0.0), abs(np.log(trial.factor))))


def _unique(trials: Sequence[Trial]) -> list[Config]:
    return list({identity(config): config for trial in trials for config in trial.configs}.values())


def _by_cell(trials: Sequence[Trial]) -> dict[Cell, list[Trial]]:
    groups: dict[Cell, list[Trial]] = {}
    for trial in trials:
        groups.setdefault(trial.cell, []).append(trial)
    return groups


def _keep(spec: TableSpec, trials: Sequence[Trial], scale: str) -> Path:
    """Write what was chosen beside the table's file; what was for other scales stays."""
    whole_row = bool(rates_of(spec).column)
    found = {cell.row if whole_row else cell.name: best(of_cell) for cell, of_cell in _by_cell(trials).items()}
    chosen = {name: [f"optimizer.lr={trial.rate:g}"] for name, trial in found.items() if trial is not None}
    before = read_chosen(spec.name, TABLE_FOLDER, [name for cell in spec.cells for name in (cell.name, cell.row)])
    command = f"python scripts/tune.py {spec.name} --scale {scale}"
    return write_chosen(spec.name, TABLE_FOLDER, {**before, scale: chosen}, command)


def describe(spec: TableSpec, trials: Sequence[Trial], scale: str) -> str:
    """What will be run."""
    walk, cells = rates_of(spec).walk, len(_by_cell(trials))
    unique = _unique(taking_part(trials, walk))
    to_do = [config for config in unique if RunFolder.of(config).read() is None]
    runs = f"{len(unique)} runs" + f" of {len(_unique(trials))} at most" * walk
    return f"{spec.heading}, scale {scale}: {cells} cells, {runs}, {len(to_do)} of them to do"


def to_markdown(spec: TableSpec, trials: Sequence[Trial], scale: str) -> str:
    """One line a cell, one column a factor; the chosen value is bold."""
    factors = rates_of(spec).factors
    lines = []
    for cell, of_cell in _by_cell(trials).items():
        kept = best(of_cell)
        shown = {trial.factor: _shown(trial, kept) for trial in of_cell}
        values = [shown.get(factor, "") for factor in factors]
        measured = first_measured(record for trial in of_cell for record in trial.records)
        metric = measured["valid_metric"] if measured else ""
        lines.append([cell.row, cell.column, metric, *values, "none" if kept is None else f"{kept.rate:g}"])
    heads = ["row", "column", "valid", *(f"{factor:g} ×" for factor in factors), "chosen rate"]
    records = [record for config in _unique(trials) if (record := RunFolder.of(config).read()) is not None]
    cost = duration(sum(float(record["seconds"]) for record in records))
    table = tabulate(lines, heads, tablefmt="pipe", disable_numparse=True)
    notes = [describe_rates(rates_of(spec), scale), f"Cost: {cost} for {len(records)} runs."]
    return f"# Learning rates of {spec.heading}, {scale}\n\n{table}\n\n" + "\n".join(f"- {n}" for n in notes) + "\n"


def _shown(trial: Trial, kept: Trial | None) -> str:
    if trial.value is None:
        return ", ".join(dict.fromkeys(record["status"] for record in trial.records)) or "not run"
    return f"**{trial.value:.4g}**" if trial is kept else f"{trial.value:.4g}"


def to_csv(trials: Sequence[Trial]) -> str:
    """One line a trial, full precision."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["row", "column", "factor", "lr", "value", "chosen"])
    for cell, of_cell in _by_cell(trials).items():
        kept = best(of_cell)
        for trial in of_cell:
            value = "" if trial.value is None else f"{trial.value:.10g}"
            writer.writerow([cell.row, cell.column, f"{trial.factor:g}", f"{trial.rate:g}", value, int(trial is kept)])
    return stream.getvalue()


def _write_report(spec: TableSpec, trials: Sequence[Trial], scale: str, folder: Path) -> list[Path]:
    texts = {"md": to_markdown(spec, trials, scale), "csv": to_csv(trials)}
    return [write_result(folder / f"{spec.name}-{scale}.{suffix}", text) for suffix, text in texts.items()]
