"""Committed records of tables: written, brought back as run folders or tables, and compared with the tables."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.config import identity
from benchmarks.errors import ConfigError, ResultsError
from benchmarks.tables import archive
from benchmarks.tables.make import collected, table_texts
from benchmarks.tables.plan import make_plan
from benchmarks.tables.render import write_texts
from benchmarks.tables.spec import TableSpec
from benchmarks.tables.targets import Plans, load_target
from benchmarks.utils.text import first_difference


def export(plans: Plans) -> None:
    """Write the recorded runs of each plan to an archive of its own; print how many.

    Raises:
        ConfigError: a table or figure without recorded runs at its scale.
        ResultsError: an archive cannot be written.
    """
    for plan in plans:
        how = {"scale": plan.scale, "why": plan.why, "seeds": plans.seeds, "rules": plans.rules}
        collection = archive.collect(plan.target.name, how, (run.config for run in plan.runs))
        if not collection.runs:
            raise ConfigError(f"{plan.target.heading} has no recorded runs at scale {plan.scale}")
        path = collection.write()
        runs = len({identity(run.config) for run in plan.runs})
        print(f"{path.name}: {len(collection.runs)} runs of {runs}, {path.stat().st_size / 1e6:.2f} MB")


def restore(plans: Plans) -> None:
    """Put the archived runs of each plan back as run folders; print how many."""
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
    made = _made_again(name)
    if not made.texts:
        return Verification(name, made.records, made.runs)
    files = {_tables() / f"{name}.{suffix}": text for suffix, text in made.texts.items()}
    committed = {path: path.read_text(encoding="utf-8") if path.exists() else "" for path in files}
    differing = {
        path.name: first_difference(committed[path], text) for path, text in files.items() if committed[path] != text
    }
    return Verification(name, made.records, made.runs, differing)


def without_records() -> list[str]:
    """List the committed tables whose runs are not committed, so that nothing can be checked."""
    return sorted({path.stem for path in _tables().glob("*.csv")} - set(archive.archived_tables()))


def render(name: str) -> list[Path]:
    """Write a table from its committed records; nothing is run, and what has no record is missing in it.

    Returns:
        The files.

    Raises:
        ResultsError: see `verify`, or the files cannot be written.
        ConfigError: see `verify`, or it is a figure.
    """
    made = _made_again(name)
    if not made.texts:
        raise ConfigError(f"{name} is a figure: `reproduce {name}` draws it")
    return write_texts(name, made.texts, _tables())


@dataclass(frozen=True)
class _MadeAgain:
    """A table as its committed records give it: how many there are, how many it takes, and its texts by suffix."""

    records: int
    runs: int
    texts: Mapping[str, str]


def _made_again(name: str) -> _MadeAgain:
    committed = archive.Archive.of(name)
    if not committed.runs:
        raise ConfigError(f"no records of '{name}' are committed; there are of: {', '.join(archive.archived_tables())}")
    target = load_target(name, committed.how["rules"])
    with tempfile.TemporaryDirectory() as folder:
        settings = [f"run.results_dir={folder}", "run.wandb=disabled"]
        plan = make_plan(target, committed.how["scale"], committed.how["seeds"], settings, 1, committed)
        if (strange := len(committed.runs) - plan.restore()) > 0:
            raise ResultsError(f"{strange} of the records of {name} belong to none of its runs")
        runs = len({identity(run.config) for run in plan.runs})
        if not isinstance(target, TableSpec):
            return _MadeAgain(len(committed.runs), runs, {})
        # Which data are here must make no difference.
        found = [replace(run, missing="") for run in collected(plan, {})]
        texts = table_texts(target, found, plan.scale, str(committed.how["why"]))
    return _MadeAgain(len(committed.runs), runs, texts)


def _tables() -> Path:
    return archive.RECORDS.parent / "tables"
