"""Choice of a table's learning rates: every cell is tried with the same few, and the best on validation is kept.

The runs that decide are recorded like any others, so a search that was ended goes on. Test
scores are not looked at.
"""

from collections.abc import Sequence
from pathlib import Path

from benchmarks.config import identity
from benchmarks.errors import ConfigError
from benchmarks.launchers import launch, make_launcher, settings_among
from benchmarks.launchers.report import Problem
from benchmarks.run.record_schema import first_measured
from benchmarks.tables.chosen import chosen_name, read_chosen, report_name, write_chosen
from benchmarks.tables.files import write_texts
from benchmarks.tables.footnotes import describe_rates
from benchmarks.tables.schema import known_tables
from benchmarks.tables.spec import TableSpec, load_spec
from benchmarks.tuning.trials import (
    Trial,
    best,
    by_cell,
    make_trials,
    rates_of,
    records_of,
    runs_of,
    taking_part,
    with_records,
)
from benchmarks.utils.paths import config_files
from benchmarks.utils.text import csv_text, duration, markdown_list, markdown_page, markdown_table, name_meant


def tune(
    table: str, scale: str, settings: Sequence[str], dry: bool = False, rules: Sequence[str] = ()
) -> list[Problem]:
    """Try the rates of a table, write a report of them, and keep the best of each cell beside the table's file.

    Args:
        table: its name.
        scale: of the runs.
        settings: overrides for every run and the launcher.
        dry: print what would be run, and stop.
        rules: further rules; only the rows that they add are tried then, and the others keep what they have.

    Returns:
        The runs that failed or diverged.

    Raises:
        ConfigError: a rule that adds nothing, or see `make_trials`.
        ResultsError: a file that cannot be written.
    """
    spec = load_spec(name_meant(table, known_tables()), rules)
    if idle := [rule for rule in rules if all(cell.extra_rule != rule for cell in spec.cells)]:
        raise ConfigError(f"{spec.heading} has all cells of rule {', '.join(idle)} already; leave it out of --rules")
    trials = with_records(make_trials(spec, scale, settings))
    print(describe(spec, trials, scale), flush=True)
    if dry:
        return []
    launcher, device = settings_among(settings)
    make_launcher(launcher).check_device(device)
    walk = rates_of(spec).walk
    trials, problems = run_trials(trials, walk)
    folder = Path(trials[0].configs[0].run.results_dir) / "search"
    for rule in rules or ("",):
        of_rule = [trial for trial in trials if trial.cell.extra_rule == rule]
        written = [*write_report(spec, of_rule, scale, folder, rule), keep_best(spec, of_rule, scale, rule)]
        print(f"\n{to_markdown(spec, of_rule, scale)}\nwritten: {', '.join(map(str, written))}")
    return problems


def run_trials(trials: Sequence[Trial], walk: bool) -> tuple[list[Trial], list[Problem]]:
    """Run the trials that take part and have no record, until none is left.

    Returns:
        Those that took part, with their records, and the runs that failed or diverged.
    """
    problems: list[Problem] = []
    attempted: set[str] = set()
    part = taking_part(trials, walk)
    while due := [run for run in runs_of(part) if identity(run) not in attempted]:
        attempted |= {identity(run) for run in due}
        problems += launch(due, due[0].launcher)
        part = taking_part(with_records(trials), walk)
    return part, problems


def keep_best(spec: TableSpec, trials: Sequence[Trial], scale: str, rule: str = "") -> Path:
    """Write the chosen rates beside the table's file; those for other scales are kept."""
    whole_row = bool(rates_of(spec).column)
    found = {cell.row if whole_row else cell.name: best(of_cell) for cell, of_cell in by_cell(trials).items()}
    chosen = {name: [f"optimizer.lr={trial.rate:g}"] for name, trial in found.items() if trial is not None}
    folder = config_files("table")[spec.name].parent
    name = chosen_name(spec.name, rule)
    before = read_chosen(name, folder, [name for cell in spec.cells for name in (cell.name, cell.row)])
    command = f"python -m benchmarks tune {spec.name} --scale {scale}" + f" --rules {rule}" * bool(rule)
    return write_chosen(name, folder, {**before, scale: chosen}, command)


def describe(spec: TableSpec, trials: Sequence[Trial], scale: str) -> str:
    """Describe what will be run."""
    walk, cells = rates_of(spec).walk, len(by_cell(trials))
    first = taking_part(trials, walk)
    count = len(runs_of(first))
    runs = f"{count} runs" + f" of {len(runs_of(trials))} at most" * walk
    to_do = count - len(records_of(first))
    return f"{spec.heading}, scale {scale}: {cells} cells, {runs}, {to_do} of them to do"


def to_markdown(spec: TableSpec, trials: Sequence[Trial], scale: str) -> str:
    """Format the trials as Markdown: one line per cell, one column per factor, the chosen value bold."""
    factors = rates_of(spec).factors
    lines = []
    for cell, of_cell in by_cell(trials).items():
        kept = best(of_cell)
        shown = {trial.factor: _shown(trial, kept) for trial in of_cell}
        values = [shown.get(factor, "") for factor in factors]
        measured = first_measured(record for trial in of_cell for record in trial.records)
        metric = measured["valid_metric"] if measured else ""
        lines.append([cell.row, cell.column, metric, *values, "none" if kept is None else f"{kept.rate:g}"])
    heads = ["row", "column", "valid", *(f"{factor:g} ×" for factor in factors), "chosen rate"]
    records = records_of(trials)
    cost = duration(sum(float(record["seconds"]) for record in records))
    table = markdown_table(heads, lines, left=len(heads))
    notes = [describe_rates(rates_of(spec), scale), f"Cost: {cost} for {len(records)} runs."]
    return markdown_page(f"Learning rates of {spec.heading}, {scale}", table, markdown_list(notes))


def _shown(trial: Trial, kept: Trial | None) -> str:
    if trial.value is None:
        return ", ".join(dict.fromkeys(record["status"] for record in trial.records)) or "not run"
    return f"**{trial.value:.4g}**" if trial is kept else f"{trial.value:.4g}"


def to_csv(trials: Sequence[Trial]) -> str:
    """Format the trials as CSV: one line per trial, full precision."""
    rows: list[list[object]] = []
    for cell, of_cell in by_cell(trials).items():
        kept = best(of_cell)
        for trial in of_cell:
            value = "" if trial.value is None else f"{trial.value:.10g}"
            rows.append([cell.row, cell.column, f"{trial.factor:g}", f"{trial.rate:g}", value, int(trial is kept)])
    return csv_text(["row", "column", "factor", "lr", "value", "chosen"], rows)


def write_report(spec: TableSpec, trials: Sequence[Trial], scale: str, folder: Path, rule: str = "") -> list[Path]:
    """Write the trials as Markdown and CSV to a folder."""
    texts = {"md": to_markdown(spec, trials, scale), "csv": to_csv(trials)}
    return write_texts(report_name(spec.name, scale, rule), texts, folder)
