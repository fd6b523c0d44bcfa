"""Committed records of tables: written, brought back as run folders or tables, and compared with the tables."""

import os
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.config import Config, identity
from benchmarks.errors import ConfigError, ResultsError, SuiteError
from benchmarks.run.record_schema import Record
from benchmarks.tables import archive
from benchmarks.tables.at_step import with_metrics_at_steps
from benchmarks.tables.figure import known_figures
from benchmarks.tables.files import write_table
from benchmarks.tables.make import keys_at_steps, table_texts
from benchmarks.tables.plan import Plan
from benchmarks.tables.schema import known_tables
from benchmarks.tables.spec import TableSpec
from benchmarks.tables.targets import Plans, archived_plan
from benchmarks.utils.overrides import quoted
from benchmarks.utils.text import first_difference
from benchmarks.utils.values import expanded_folder


def export(plans: Plans, force: bool = False) -> list[str]:
    """Write the recorded runs of each plan to an archive of its own, below DFA_RESULTS_DIR or in the repository.

    Where it is and how many runs it has is printed. Errors are kept in `plans`.

    Args:
        plans: of the tables and figures.
        force: replace any file that is there, also one with more runs or one that cannot be read.

    Returns:
        A line for each run that left something that cannot be committed.
    """
    left_out: list[str] = []
    for plan in plans:
        how = {"scale": plan.scale, "why": plan.why, "seeds": plans.seeds, "rules": plans.rules}
        collection = archive.collect(plan.target.name, how, (run.config for run in plan.runs))
        left_out += collection.left_out
        try:
            path = _write(collection.archive, plan, force)
        except SuiteError as error:
            plans.failed(plan.target.name, error)
            continue
        runs = len({identity(run.config) for run in plan.runs})
        print(f"{path}: {len(collection.archive.runs)} runs of {runs}, {path.stat().st_size / 1e6:.2f} MB")
    return left_out


def _write(found: archive.Archive, plan: Plan, force: bool) -> Path:
    if not found.runs:
        raise ConfigError(f"{plan.target.heading} has no recorded runs at scale {plan.scale}")
    folder = _written_below() / "records"
    path = archive.archive_path(found.table, folder)
    before = archive.Archive(found.table) if force else archive.Archive.of(found.table, folder)
    if found.poorer_than(before):
        raise ResultsError(
            f"{len(found.runs)} runs, {found.done} of them done; the records in '{path}'"
            f" are of {len(before.runs)}, {before.done} of them done, and are kept (see --force)"
        )
    return found.write(folder)


def restore(plans: Plans) -> None:
    """Put the archived runs of each plan back as run folders; print how many.

    Raises:
        ResultsError: the results folder cannot be written to.
    """
    for plan in plans:
        restored = archive.Archive.of(plan.target.name).restore(run.config for run in plan.runs)
        print(f"{plan.target.name}: {restored} of {len(plan.runs)} runs put back from committed records")


@dataclass(frozen=True)
class Verification:
    """What checking a table against its committed records found.

    Attributes:
        name: of the table or figure.
        records: committed runs.
        runs: runs that it takes.
        differing: file of the table that is not what the records give → the first line that differs, committed and
            made; None for a figure.
    """

    name: str
    records: int
    runs: int
    differing: Mapping[str, tuple[str, str]] | None = None

    def __str__(self) -> str:
        """Say it in one line, and show each difference in two more."""
        head = f"{self.name}: {self.records} of {self.runs} runs recorded"
        if self.differing is None:
            return head
        wrong = "; ".join(f"{file} is not what its records give" for file in self.differing)
        shown = [
            f"\n  {file}, committed: {before}\n  {file}, made:      {made}"
            for file, (before, made) in self.differing.items()
        ]
        return "".join([f"{head}; {wrong or 'the table is what they give'}", *shown])


def verify(name: str) -> Verification:
    """Make a table again from its records, and compare it with the files on disk.

    Raises:
        ResultsError: the records cannot be read or were altered, or some are not of this table.
        ConfigError: there is no such table, or no archive of it.
    """
    made = _made_again(archive.Archive.of(name))
    if not made.texts:
        return Verification(name, made.records, made.runs)
    files = {_committed_tables() / f"{name}.{suffix}": text for suffix, text in made.texts.items()}
    committed = {path: path.read_text(encoding="utf-8") if path.exists() else "" for path in files}
    differing = {
        path.name: first_difference(committed[path], text) for path, text in files.items() if committed[path] != text
    }
    return Verification(name, made.records, made.runs, differing)


def without_records() -> list[str]:
    """List the committed tables whose runs are not committed, so that nothing can be checked."""
    return sorted({path.stem for path in _committed_tables().glob("*.csv")} - set(archive.archived_tables()))


def of_no_table() -> list[str]:
    """List the committed files of records of which there is no table or figure, so that nothing can be checked."""
    return sorted({*archive.archived_tables()} - {*known_tables(), *known_figures()})


def render(name: str, force: bool = False) -> list[Path]:
    """Write a table from its records; nothing is run, and what has no record is missing in it.

    With DFA_RESULTS_DIR the table goes below that folder, from the records there if it has some.

    Args:
        name: of the table.
        force: replace a table on disk also by one with fewer results.

    Returns:
        The files.

    Raises:
        ResultsError: see `verify`; or the table on disk has more results, or the files cannot be written.
        ConfigError: see `verify`, or it is a figure.
    """
    results = _written_below()
    own = archive.Archive.of(name, results / "records")
    made = _made_again(own if own.runs else archive.Archive.of(name))
    if not made.texts:
        raise ConfigError(f"{name} is a figure: `reproduce {name}` draws it")
    return write_table(name, made.texts, results / "tables", force)


@dataclass(frozen=True)
class _MadeAgain:
    """A table as its committed records give it: how many there are, how many it takes, and its texts by suffix."""

    records: int
    runs: int
    texts: Mapping[str, str]


def _made_again(committed: archive.Archive) -> _MadeAgain:
    name = committed.table
    if not committed.runs:
        raise ConfigError(f"no records of '{name}' are committed; there are of: {', '.join(archive.archived_tables())}")
    with tempfile.TemporaryDirectory() as nothing:  # what else has been run must make no difference
        plan = archived_plan(committed, [f"run.results_dir={quoted(nothing)}", "run.wandb=disabled"])
    runs = {identity(run.config): run for run in plan.runs}
    if strange := committed.runs.keys() - runs.keys():
        raise ResultsError(f"{len(strange)} of the records of {name} belong to none of its runs")
    if not isinstance(plan.target, TableSpec):
        return _MadeAgain(len(committed.runs), len(runs), {})
    keys = keys_at_steps(plan.target)
    # Nor must which data are here.
    found = [replace(run, missing="", record=_committed_record(committed, run.config, keys)) for run in plan.runs]
    texts = table_texts(plan.target, found, plan.scale, str(committed.how["why"]))
    return _MadeAgain(len(committed.runs), len(runs), texts)


def _committed_record(committed: archive.Archive, config: Config, keys: Collection[str]) -> Record | None:
    """Return the record of a run as its table takes it, with its metrics at steps."""
    run = committed.runs.get(identity(config))
    return None if run is None else with_metrics_at_steps(run.record, run.history, keys)


def _committed_tables() -> Path:
    return archive.RECORDS.parent / "tables"


def _written_below() -> Path:
    own = os.environ.get("DFA_RESULTS_DIR")
    return Path(expanded_folder("DFA_RESULTS_DIR", own)) if own else archive.RECORDS.parent
