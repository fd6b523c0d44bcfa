"""Making of tables and figures from their plans: run what is missing, then write them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.config import Config, identity
from benchmarks.errors import ResultsError
from benchmarks.launchers import launch
from benchmarks.launchers.report import Problem
from benchmarks.run.inputs import current_record
from benchmarks.run.names import run_name
from benchmarks.run.record_schema import DAMAGED
from benchmarks.run.records import Record, RunFolder
from benchmarks.run.wandb import copy_files
from benchmarks.tables.at_step import MARK, with_metrics_at_steps
from benchmarks.tables.cells import Cell
from benchmarks.tables.figure import DrawingError, FigureSpec, draw_figure, drawing, load_figure
from benchmarks.tables.files import RicherTable, write_table
from benchmarks.tables.footnotes import describe_runs
from benchmarks.tables.metric_keys import check_keys
from benchmarks.tables.plan import AS_ASKED, Plan, PlannedRun, make_plan
from benchmarks.tables.render import to_csv, to_latex, to_markdown
from benchmarks.tables.spec import TableSpec
from benchmarks.tables.summary import CellOutcome, summarise
from benchmarks.tables.targets import Plans
from benchmarks.utils.exits import USER_ERRORS, one_line


def reproduce_all(plans: Plans, dry: bool = False, force: bool = False) -> list[Problem]:
    """Print each plan, run it and write its table and the figures that go with it; errors are kept in `plans`.

    Args:
        plans: of the tables and figures.
        dry: stop after the plans.
        force: see `reproduce`.

    Returns:
        The runs that failed or diverged, and the tables that were not written.

    Raises:
        ConfigError: the runs' device is not here; nothing is run then.
    """
    problems: list[Problem] = []
    if not dry:
        plans.check_device()
    for plan in plans:
        print(plan.describe(plans.jobs), flush=True)
        if dry:
            continue
        try:
            names = plan.target.file.figures if isinstance(plan.target, TableSpec) else ()
            figures = [load_figure(name) for name in names]  # a mistake in their files is reported before the work
            problems += reproduce(plan, force)
            for figure in figures:
                problems += _draw_with_table(figure, plan.scale, plans.settings, plans.jobs)
        except USER_ERRORS as error:
            plans.failed(plan.target.name, error)
    return problems


def reproduce(plan: Plan, force: bool = False) -> list[Problem]:
    """Run what a plan still needs, then write its table or figure.

    Args:
        plan: of the table or figure.
        force: replace a table on disk also by one with fewer results.

    Returns:
        The runs that failed or diverged, now or before; and the table, if the one on disk has more results.

    Raises:
        ResultsError: a figure that lacks runs, or a table with a metric that none of them has.
    """
    if isinstance(plan.target, FigureSpec):
        drawing(plan.target, (run.config for run in plan.runs))  # a mistake in its file is reported before the work
    plan.restore()
    plan.set_aside_without_weights()
    problems = launch([run.config for run in plan.to_do], plan.runs[0].config.launcher)
    reasons = {problem.run: problem.reason for problem in problems}
    runs = collected(plan, reasons)
    for run in runs:
        key, record = identity(run.config), run.record
        if record is not None and record["status"] != "done" and key not in reasons:
            when = "" if record["status"] == DAMAGED else " in an earlier run"
            reasons[key] = f"{record['status']}{when}: {record['reason']}"
            problems.append(Problem(run_name(run.config), reasons[key], key))
    folder = Path(plan.runs[0].config.run.results_dir)
    if isinstance(plan.target, FigureSpec):
        _finish_figure(plan, plan.target, runs, folder)
    elif isinstance(plan.target, TableSpec):
        problems += _finish_table(plan, plan.target, runs, folder, force)
    return problems


def collected(plan: Plan, reasons: Mapping[str, str]) -> list[PlannedRun]:
    """Read the records that a plan's runs have now.

    Args:
        plan: of a table or figure.
        reasons: identity → why a run could not be carried out.
    """
    keys = keys_at_steps(plan.target) if isinstance(plan.target, TableSpec) else ()

    def record_of(config: Config) -> Record | None:
        record = current_record(config)
        if record is None or not keys:
            return record
        return with_metrics_at_steps(record, RunFolder.of(config).history(), keys)

    def found(run: PlannedRun) -> PlannedRun:
        record = record_of(run.config)
        reason = run.missing or reasons.get(identity(run.config), "")
        if record is None and not reason and RunFolder.of(run.config).is_held():
            reason = "another process is at work on it"
        return replace(run, record=record, missing=reason)

    return [found(run) for run in plan.runs]


def keys_at_steps(spec: TableSpec) -> set[str]:
    """Collect the keys of a table's metrics that a run's history holds, and not its record."""
    return {key for metric in spec.metrics.values() for key in metric.all_keys() if MARK in key}


def table_texts(spec: TableSpec, runs: Sequence[PlannedRun], scale: str, why: str) -> dict[str, str]:
    """Render a table from its runs: "md", "csv" and "tex" → text.

    Args:
        spec: the table.
        runs: all of its runs at one scale, with their records.
        scale: of the runs.
        why: that scale, in words.
    """
    outcomes = _outcomes(spec, runs)
    entries = summarise(spec, outcomes, scale)
    chosen = [f"Chosen scale: {scale}, {why}."] if why != AS_ASKED else []
    footer = [*chosen, *describe_runs(spec, outcomes, entries)]
    return {
        "md": to_markdown(spec, entries, footer),
        "csv": to_csv(spec, entries),
        "tex": to_latex(spec, entries, footer),
    }


def _draw_with_table(figure: FigureSpec, scale: str, settings: Sequence[str], jobs: int) -> list[Problem]:
    """Draw a figure that goes with a table, at the table's scale, unless it lacks runs like the table, or weights.

    Raises:
        DrawingError: its function fails.
    """
    try:
        plan = make_plan(figure, scale, None, settings, jobs)
        if plan.target.weights and plan.to_do:
            raise ResultsError(f"{figure.name} needs the weights of {len(plan.to_do)} runs, which records do not hold")
        return reproduce(plan)
    except DrawingError:
        raise
    except ResultsError as error:
        print(f"not drawn: {one_line(error)}")
        return []


def _finish_table(plan: Plan, spec: TableSpec, runs: Sequence[PlannedRun], folder: Path, force: bool) -> list[Problem]:
    check_keys(spec, _outcomes(spec, runs), plan.scale)
    # Everything is rendered before anything is written, so that an error leaves the old files in step.
    texts, place = table_texts(spec, runs, plan.scale, plan.why), folder / "tables"
    print(f"\n{texts['md']}", flush=True)
    try:
        written = write_table(spec.name, texts, place, force)
    except RicherTable as kept:
        return [Problem(spec.name, str(kept))]
    configs = [run.config for run in runs]
    copy_files(configs[0].run, spec.name, "table", written, configs)
    print("written: " + ", ".join(map(str, written)))
    return []


def _outcomes(spec: TableSpec, runs: Sequence[PlannedRun]) -> dict[Cell, CellOutcome]:
    return {cell: _outcome([run for run in runs if run.cell == cell]) for cell in spec.cells}


def _outcome(runs: Sequence[PlannedRun]) -> CellOutcome:
    records = [run.record for run in runs if run.record is not None and run.record["status"] != DAMAGED]
    done = [record for record in records if record["status"] == "done"]
    unsuccessful = [record for record in records if record["status"] != "done"]
    if unsuccessful:
        reasons = "; ".join(f"seed {record['seed']} {record['status']}: {record['reason']}" for record in unsuccessful)
        status = "diverged" if any(record["status"] == "diverged" for record in unsuccessful) else "failed"
        return CellOutcome(done, len(runs), status, reasons)
    if len(done) == len(runs):
        return CellOutcome(done, len(runs), "done")
    damaged = [f"seed {run.record['seed']} damaged" for run in runs if run.record and run.record["status"] == DAMAGED]
    reason = "; ".join(damaged) or next((run.missing for run in runs if run.missing), "not run")
    return CellOutcome(done, len(runs), "partial" if done else "missing", reason)


def _finish_figure(plan: Plan, spec: FigureSpec, runs: Sequence[PlannedRun], folder: Path) -> None:
    missing = [run for run in runs if run.record is None or run.record["status"] != "done"]
    if missing:
        reasons = ", ".join(dict.fromkeys(run.missing or "not run" for run in missing))
        raise ResultsError(f"{spec.heading} cannot be drawn, {len(missing)} of its runs are missing: {reasons}")
    target = folder / "figures" / f"{spec.name}.png"
    configs = [run.config for run in runs]
    draw_figure(spec, {run.cell.row: run.config for run in runs}, target)
    copy_files(configs[0].run, spec.name, "figure", [target], configs)
    print(f"written: {target}")
