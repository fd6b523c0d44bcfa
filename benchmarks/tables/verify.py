"""Whether the committed tables are what their committed records give, byte for byte."""

import tempfile
from collections.abc import Iterator

from benchmarks.config import identity
from benchmarks.errors import ResultsError
from benchmarks.tables import archive
from benchmarks.tables.make import collected, load_target, table_texts
from benchmarks.tables.plan import make_plan
from benchmarks.tables.spec import TableSpec


def verify(name: str) -> Iterator[str]:
    """Make a table again from its records; yield a line for every file that differs from the one on disk.

    A table some of whose runs have no record yet cannot be made again: its records are checked, its files are not.

    Raises:
        ResultsError: the records cannot be read or were altered, or some are not of this table.
        ConfigError: there is no such table.
    """
    committed = archive.Archive.of(name)
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
