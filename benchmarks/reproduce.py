"""Plan → run → table: everything that stands behind `make reproduce-table-N` and `make reproduce-figure-N`."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.commands import EXIT_DONE, EXIT_RUNS_FAILED, EXIT_UNUSABLE, USER_ERRORS, guarded, one_line
from benchmarks.config import identity
from benchmarks.errors import ConfigError, ResultsError
from benchmarks.figures import FigureSpec, draw_figure, drawing, known_figures, load_figure
from benchmarks.footers import describe_runs
from benchmarks.launchers import launch, make_launcher, settings_among
from benchmarks.launchers.report import Problem, run_name
from benchmarks.plan import Plan, PlannedRun, make_plan
from benchmarks.records import RunFolder
from benchmarks.summaries import CellOutcome, summarise
from benchmarks.tablefile import known_tables, read_table_file
from benchmarks.tables import write_tables
from benchmarks.tablespec import TableSpec, load_spec
from benchmarks.wandb_copy import copy_files


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `scripts/reproduce.py`."""
    options = make_parser().parse_args(arguments)

    def command() -> int:
        settings = overrides(options)
        launcher, device = settings_among(settings)
        jobs = make_launcher(launcher).width(device)
        rules = [rule for rule in options.rules.split(",") if rule]
        problems: list[Problem] = []
        unusable: dict[str, list[str]] = {}
        for name in targets(options.target):
            try:
                target = load_target(name, rules)
                seeds = options.seeds if isinstance(target, TableSpec) else None
                plan = make_plan(target, options.scale, seeds, settings, jobs)
                print(plan.describe(jobs), flush=True)
                if not options.dry:
                    problems += reproduce(plan)
                    for figure in target.file.figures if isinstance(target, TableSpec) else ():
                        problems += _picture(figure, plan.scale, settings, jobs)
            except USER_ERRORS as error:  # kept for the end, so that the other tables are made
                unusable.setdefault(one_line(error), []).append(name)
        for reason, names in unusable.items():
            print(f"error: {', '.join(names)}: {reason}", file=sys.stderr)
        for problem in problems:
            print(f"error: {problem.name}: {problem.reason}", file=sys.stderr)
        if unusable:
            return EXIT_UNUSABLE
        return EXIT_RUNS_FAILED if problems else EXIT_DONE

    sys.exit(guarded(command))


def make_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = argparse.ArgumentParser(prog="reproduce", description=__doc__)
    parser.add_argument("target", nargs="+", help="table_3, figure_2, ... or 'all'")
    add_plan_options(parser)
    parser.add_argument(
        "--launcher", default="", help="local (default) | serial | slurm | ray; --set launcher.… for its options"
    )
    parser.add_argument("--jobs", type=int, help="runs at once (default: one per core)")
    parser.add_argument("--dry", action="store_true", help="print the plan and stop")
    return parser


def add_plan_options(parser: argparse.ArgumentParser) -> None:
    """What determines which runs a table or figure takes."""
    parser.add_argument("--scale", default="auto", help="auto (default) | paper | mini | smoke")
    parser.add_argument("--seeds", type=int, help="seeds per cell of a table (default: its own); a figure shows seed 0")
    parser.add_argument("--rules", default="", help="further rules to add as rows, separated by commas")
    parser.add_argument("--results", default="", help="folder of runs, tables and figures (default: results)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override for every run")


def load_target(name: str, extra_rules: Sequence[str] = ()) -> TableSpec | FigureSpec:
    """A table or figure by name.

    Raises:
        ConfigError: its file has a mistake.
    """
    return load_figure(name) if name in known_figures() else load_spec(name, extra_rules=extra_rules)


def overrides(options: argparse.Namespace) -> list[str]:
    """What the options say about every run and their launcher."""
    launcher, jobs = getattr(options, "launcher", ""), getattr(options, "jobs", None)
    return [
        *([f"launcher={launcher}"] if launcher else []),
        *([f"launcher.jobs={jobs}"] if jobs is not None else []),
        *options.set,
        *([f"run.results_dir={options.results}"] if options.results else []),
    ]


def targets(names: Sequence[str]) -> list[str]:
    """Tables and figures by name, `all` standing for all but those that have to be asked for."""
    known = [*known_tables(), *known_figures()]
    usual = [name for name in known if not _on_request_only(name)]
    wanted = usual if list(names) == ["all"] else [name.replace("-", "_").lower() for name in names]
    for name in wanted:
        if name not in known:
            raise ConfigError(f"unknown table or figure '{name}'; known: {', '.join(known)}, all")
    return wanted


def _on_request_only(name: str) -> bool:
    """Whether `all` leaves it out; not so a file with a mistake, which is then told."""
    try:
        described = load_figure(name) if name in known_figures() else read_table_file(name)
    except ConfigError:
        return False
    return described.by_name_only


def reproduce(plan: Plan) -> list[Problem]:
    """Run what a plan still needs, then write its table or figure.

    Returns:
        The runs that failed or diverged, now or before.
    """
    if isinstance(plan.target, FigureSpec):
        drawing(plan.target, (run.config for run in plan.runs))  # a mistake in its file is told before the work
    problems = launch([run.config for run in plan.to_do], plan.runs[0].config.launcher)
    reasons = {problem.run: problem.reason for problem in problems}
    runs: list[PlannedRun] = []
    for run in plan.runs:
        key, record = identity(run.config), RunFolder.of(run.config).read()
        runs.append(replace(run, record=record, missing=run.missing or reasons.get(key, "")))
        if record is not None and record["status"] != "done" and key not in reasons:
            reasons[key] = f"{record['status']} in an earlier run: {record['reason']}"
            problems.append(Problem(run_name(run.config), reasons[key], key))
    folder = Path(plan.runs[0].config.run.results_dir)
    if isinstance(plan.target, FigureSpec):
        _finish_figure(plan, plan.target, runs, folder)
    elif isinstance(plan.target, TableSpec):
        _finish_table(plan, plan.target, runs, folder)
    return problems


def _picture(name: str, scale: str, settings: Sequence[str], jobs: int) -> list[Problem]:
    """A figure that goes with a table, at the table's scale; it may lack runs for the same reasons as the table."""
    try:
        return reproduce(make_plan(load_figure(name), scale, None, settings, jobs))
    except ResultsError as error:
        print(f"not drawn: {one_line(error)}")
        return []


def _finish_table(plan: Plan, spec: TableSpec, runs: Sequence[PlannedRun], folder: Path) -> None:
    outcomes = {cell: _outcome([run for run in runs if run.cell == cell]) for cell in spec.cells}
    entries = summarise(spec, outcomes, plan.scale)
    footer = [
        f"Chosen scale: {plan.scale}, {plan.why}.",
        *describe_runs(spec, outcomes, plan.scale),
    ]
    written = write_tables(spec, entries, footer, folder / "tables")
    configs = [run.config for run in runs]
    copy_files(configs[0].run, spec.name, "table", written, configs)
    print(f"\n{written[0].read_text(encoding='utf-8')}")
    print("written: " + ", ".join(map(str, written)))


def _outcome(runs: Sequence[PlannedRun]) -> CellOutcome:
    records = [run.record for run in runs if run.record is not None]
    done = [record for record in records if record["status"] == "done"]
    unsuccessful = [record for record in records if record["status"] != "done"]
    if unsuccessful:
        reasons = "; ".join(f"seed {record['seed']} {record['status']}: {record['reason']}" for record in unsuccessful)
        status = "diverged" if any(record["status"] == "diverged" for record in unsuccessful) else "failed"
        return CellOutcome(done, len(runs), status, reasons)
    if len(done) == len(runs):
        return CellOutcome(done, len(runs), "done")
    reason = next((run.missing for run in runs if run.missing), "not run")
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
