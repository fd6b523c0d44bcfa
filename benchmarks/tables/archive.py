"""Archives of the runs behind a table: `results/records/<table>.parquet`, one row per run."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.config import CIRCUMSTANCES, Config, identity, to_dict
from benchmarks.errors import ResultsError
from benchmarks.run.record_schema import DAMAGED, Record
from benchmarks.tables.archive_schema import COLUMNS, HOW, fault_in_run
from benchmarks.utils.files import atomic_path, check_regular
from benchmarks.utils.kinds import misfit, shown
from benchmarks.utils.paths import REPOSITORY

RECORDS = REPOSITORY / "results" / "records"
COMMITTED = "committed"
"""Field of a record that came from an archive, with the archive's name."""
MOST_ROWS = 100
"""Evaluations kept of a run's history: enough for any learning curve."""
_KEY = b"benchmarks"


@dataclass(frozen=True)
class ArchivedRun:
    """Run of an archive.

    Attributes:
        config: the resolved configuration, without what a machine or launcher adds to it.
        record: what `result.json` held.
        history: evaluations, thinned to at most `MOST_ROWS`.
    """

    config: Mapping[str, Any]
    record: Record
    history: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Archive:
    """Archived runs of a table, by identity.

    Attributes:
        table: the table's name.
        how: how the table was made: scale, why that scale, seeds asked for, further rules.
        runs: identity → run.
    """

    table: str
    how: Mapping[str, Any] = field(default_factory=dict)
    runs: Mapping[str, ArchivedRun] = field(default_factory=dict)

    @classmethod
    def of(cls, table: str, folder: Path | None = None) -> "Archive":
        """Read the archive of a table; an empty one where there is none.

        Raises:
            ResultsError: the file cannot be read, its content is not what was written, or a row is not whole.
        """
        path = archive_path(table, folder)
        # A link to nothing is no missing archive: runs would be carried out again that are recorded somewhere.
        return cls._read(table, path) if os.path.lexists(path) else cls(table)

    @classmethod
    def _read(cls, table: str, path: Path) -> "Archive":
        try:
            check_regular(path)
            content = pq.read_table(path)
            head = json.loads((content.schema.metadata or {})[_KEY])
            rows = content.select(list(COLUMNS)).to_pylist()
            altered = head["sha256"] != _checksum(rows)
            runs = [(row["identity"], *map(json.loads, [row[name] for name in COLUMNS[1:]])) for row in rows]
            how = head["how"]
        except OSError as error:
            raise ResultsError(f"the records in '{path}' cannot be read: {error.strerror or error}") from None
        except (pa.ArrowException, KeyError, TypeError, ValueError, RecursionError) as error:
            reason = f"'{path}' cannot be read, they are no archive ({type(error).__name__})"
            raise ResultsError(f"the records in {reason}{_how_to_restore(path)}") from None
        if altered:
            raise ResultsError(f"the records in '{path}' were altered: they do not have the checksum they came with")
        if fault := misfit(how, HOW):
            raise ResultsError(f"the records in '{path}' cannot be used: how they were made {fault}")
        for key, config, record, history in runs:
            if fault := fault_in_run(key, config, record, history):
                raise ResultsError(f"the records in '{path}' cannot be used: run {shown(key)} {fault}")
        if twice := [key for key, count in Counter(key for key, *_ in runs).items() if count > 1]:
            raise ResultsError(f"the records in '{path}' cannot be used: run {shown(twice[0])} is in them twice")
        return cls(table, {name: how[name] for name in HOW}, {key: ArchivedRun(*parts) for key, *parts in runs})

    def write(self, folder: Path | None = None) -> Path:
        """Write the archive; the same runs give the same bytes.

        Raises:
            ResultsError: the folder cannot be written to.
        """
        rows = [_row(key, run) for key, run in sorted(self.runs.items(), key=lambda item: _order(item[1]))]
        head = {"how": dict(self.how), "sha256": _checksum(rows)}
        content = pa.Table.from_pylist(rows).replace_schema_metadata({_KEY: json.dumps(head, sort_keys=True).encode()})
        path = archive_path(self.table, folder)
        try:
            with atomic_path(path) as temporary:
                pq.write_table(content, temporary, compression="zstd", compression_level=19)
        except OSError as error:
            raise ResultsError(f"cannot write {path}: {error.strerror or error}") from None
        return path

    @property
    def done(self) -> int:
        """Return how many of its runs are done."""
        return sum(run.record["status"] == "done" for run in self.runs.values())

    def poorer_than(self, other: "Archive") -> bool:
        """Return whether the other one holds more runs, or more that are done."""
        return len(self.runs) < len(other.runs) or self.done < other.done

    def holds(self, config: Config) -> bool:
        """Return whether the run that `config` describes is archived."""
        return bool(self.runs) and identity(config) in self.runs

    def record_of(self, config: Config) -> Record | None:
        """Return the record of an archived run, marked as committed; None where it is not archived."""
        run = self.runs.get(identity(config)) if self.runs else None
        return None if run is None else {**run.record, COMMITTED: self.table}

    def restore(self, configs: Iterable[Config]) -> int:
        """Put archived runs back as run folders, where there is no record yet; return how many.

        A run that another process is at work on is left to it.

        Raises:
            ResultsError: the results folder cannot be written to.
        """
        from benchmarks.run.records import RunBusy, RunFolder  # late: archives are read where there is no PyTorch, too

        restored = 0
        for config in configs:
            folder, archived = RunFolder.of(config), self.runs.get(identity(config)) if self.runs else None
            if archived is None or folder.result.exists():
                continue
            content = {**archived.config, **{key: to_dict(config)[key] for key in CIRCUMSTANCES}}
            with suppress(RunBusy), folder.locked(wait=False):
                if not folder.result.exists():  # another process may have finished it a moment ago
                    folder.put_back(content, archived.history, {**archived.record, COMMITTED: self.table})
                    restored += 1
        return restored


def archived_tables() -> list[str]:
    """List the tables and figures whose records are committed."""
    return sorted(path.stem for path in RECORDS.glob("*.parquet"))


@dataclass(frozen=True)
class Collection:
    """What was found of the runs of a table.

    Attributes:
        archive: of those that are recorded whole.
        left_out: a line for each of the others that left something, with the reason.
    """

    archive: Archive
    left_out: Sequence[str]


def collect(table: str, how: Mapping[str, Any], configs: Iterable[Config]) -> Collection:
    """Collect the recorded ones among runs.

    Args:
        table: name of the table or figure.
        how: see `Archive`.
        configs: of its runs.
    """
    from benchmarks.run.inputs import inputs_of
    from benchmarks.run.names import run_name
    from benchmarks.run.records import RunFolder

    runs: dict[str, ArchivedRun] = {}
    left_out: dict[str, str] = {}
    for config in configs:
        key, folder = identity(config), RunFolder.of(config)
        record = folder.read()
        if record is None:
            continue
        try:
            other = inputs_of(config, record).differs_from(record)
            fault = record["reason"] if record["status"] == DAMAGED else other and f"it was made with {other}"
            history = [] if fault else folder.complete_history(record)
        except ResultsError as error:
            fault = str(error)
        if fault:
            left_out[key] = f"{run_name(config)} is left out: {fault}"
            continue
        content = {name: value for name, value in to_dict(config).items() if name not in CIRCUMSTANCES}
        kept = {name: value for name, value in record.items() if name not in ("trace", COMMITTED)}
        runs[key] = ArchivedRun(content, kept, thinned(history, record))
    return Collection(Archive(table, how, runs), tuple(left_out.values()))


def archive_path(table: str, folder: Path | None = None) -> Path:
    """Return where the archive of a table is."""
    return (folder or RECORDS) / f"{table}.parquet"


def _how_to_restore(path: Path) -> str:
    """Say how a file of records comes back that the repository keeps; "" of another."""
    if not path.is_relative_to(REPOSITORY):
        return ""
    return f"; `git restore {path.relative_to(REPOSITORY)}` brings the committed ones back"


def thinned(history: Sequence[Mapping[str, Any]], record: Record) -> list[Mapping[str, Any]]:
    """Keep evenly spaced evaluations, at most about `MOST_ROWS`, the best and the last among them."""
    every = max(1, -(-len(history) // MOST_ROWS))
    last = len(history) - 1
    best = record.get("best_step")
    return [
        row for place, row in enumerate(history) if (last - place) % every == 0 or (best and row.get("step") == best)
    ]


def _row(key: str, run: ArchivedRun) -> dict[str, Any]:
    record = run.record
    return {
        "identity": key,
        **{name: record[name] for name in ("task", "model", "rule", "seed", "scale", "status", "commit", "device")},
        "data": record["data"]["kind"],
        "best_valid": None if record["best_valid"] is None else float(record["best_valid"]),
        "seconds": float(record["seconds"]),
        **{name: json.dumps(getattr(run, name)) for name in ("config", "record", "history")},
    }


def _order(run: ArchivedRun) -> tuple[str, str, str, int, str]:
    record = run.record
    return record["task"], record["model"], record["rule"], int(record["seed"]), json.dumps(run.config, sort_keys=True)


def _checksum(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return the sha256 of the columns of rows from which all others follow."""
    digest = hashlib.sha256()
    for row in rows:
        for name in COLUMNS:
            digest.update(str(row[name]).encode() + b"\0")
    return digest.hexdigest()
