"""Committed records of tables: written, brought back as run folders, and checked against the tables byte for byte."""

import tempfile
from collections.abc import Iterator, Sequence

from benchmarks.config import identity
from benchmarks.errors import ConfigError, ResultsError
from benchmarks.tables import archive
from benchmarks.tables.make import collected, table_texts
from benchmarks.tables.plan import make_plan
from benchmarks.tables.spec import TableSpec
from benchmarks.tables.targets import Plans, load_target


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
        print(f"{path.name}: {len(collection.runs)} runs of {len(plan.runs)}, {path.stat().st_size / 1e6:.2f} MB")


def restore(plans: Plans) -> None:
    """Put the archived runs of each plan back as run folders; print how many."""
    for plan in plans:
        print(f"{plan.target.name}: {plan.restore()} of {len(plan.runs)} runs put back from committed records")


def verify_all(names: Sequence[str]) -> bool:
    """Verify tables by name, see `verify`, and print what was found; return whether all are what their records give."""
    found = {name: list(verify(name)) for name in names}
    for name, differences in found.items():
        runs = len(archive.Archive.of(name).runs)
        print(f"{name}: {runs} records, {'; '.join(differences) or 'the table is what they give'}")
    return not any(found.values())


def verify(name: str) -> Iterator[str]:
    """Make a table again from its records; yield a line for every file that differs from the one on disk.

    A table some of whose runs have no record yet cannot be made again: its records are checked, its files are not.

    Raises:
        ResultsError: the records cannot be read or were altered, or some are not of this table.
        ConfigError: there is no such table, or no archive of it.
    """
    committed = archive.Archive.of(name)
    if not committed.runs:
        raise ConfigError(f"no records of '{name}' are committed; there are of: {', '.join(archive.archived_tables())}")
    target = load_target(name, committed.how["rules"])
    with tempfile.TemporaryDirectory() as folder:
        settings = [f"run.results_dir={folder}", "run.wandb=disabled"]
        plan = make_plan(target, committed.how["scale"], committed.how["seeds"], settings, 1, committed)
        used = plan.restore()
        if used < len(committed.runs):
            raise ResultsError(f"{len(committed.runs) - used} of the records of {name} belong to none of its runs")
        complete = len(committed.runs) == len({identity(run.config) for run in plan.runs})
        if isinstance(target, TableSpec) and complete:
            why = str(committed.how["why"])
            for suffix, text in table_texts(target, collected(plan, {}), plan.scale, why).items():
                path = archive.RECORDS.parent / "tables" / f"{name}.{suffix}"
                if not path.exists() or path.read_text(encoding="utf-8") != text:
                    yield f"{path.name} is not what its records give"
