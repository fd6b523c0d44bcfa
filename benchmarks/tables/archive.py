"""Archives of the runs behind a table: `results/records/<table>.parquet`, one row per run."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from benchmarks.config import CIRCUMSTANCES, Config, identity, to_dict
from benchmarks.errors import ResultsError
from benchmarks.run.record_schema import DAMAGED, Record, fault_in
from benchmarks.utils.files import atomic_path, write_text
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
            ResultsError: the file cannot be read, or its content is not what was written.
        """
        path = (folder or RECORDS) / f"{table}.parquet"
        return cls._read(table, path) if path.exists() else cls(table)

    @classmethod
    def _read(cls, table: str, path: Path) -> "Archive":
        try:
            content = pq.read_table(path)
            head = json.loads(content.schema.metadata[_KEY])
            rows = content.select(["identity", "config", "record", "history"]).to_pylist()
            if head["sha256"] != _checksum(rows):
                raise ResultsError(
                    f"the records in '{path}' were altered: they do not have the checksum they came with"
                )
            runs = {
                row["identity"]: ArchivedRun(*(json.loads(row[name]) for name in ("config", "record", "history")))
                for row in rows
            }
            how = {name: head["how"][name] for name in ("scale", "why", "seeds", "rules")}
        except (OSError, pa.ArrowException, KeyError, TypeError, ValueError, RecursionError) as error:
            raise ResultsError(f"the records in '{path}' cannot be read: {error!r}") from None
        for key, run in runs.items():
            if fault := fault_in(run.record):
                raise ResultsError(f"the records in '{path}' cannot be used: that of run {key} {fault}")
        return cls(table, how, runs)

    def write(self, folder: Path | None = None) -> Path:
        """Write the archive; the same runs give the same bytes.

        Raises:
            ResultsError: the folder cannot be written to.
        """
        rows = [_row(key, run) for key, run in sorted(self.runs.items(), key=lambda item: _order(item[1]))]
        head = {"how": dict(self.how), "sha256": _checksum(rows)}
        content = pa.Table.from_pylist(rows).replace_schema_metadata({_KEY: json.dumps(head, sort_keys=True).encode()})
        path = (folder or RECORDS) / f"{self.table}.parquet"
        try:
            with atomic_path(path) as temporary:
                pq.write_table(content, temporary, compression="zstd", compression_level=19)
        except OSError as error:
            raise ResultsError(f"cannot write {path}: {error.strerror or error}") from None
        return path

    def holds(self, config: Config) -> bool:
        """Return whether the run that `config` describes is archived."""
        return bool(self.runs) and identity(config) in self.runs

    def record_of(self, config: Config) -> Record | None:
        """Return the record of an archived run, marked as committed; None where it is not archived."""
        run = self.runs.get(identity(config)) if self.runs else None
        return None if run is None else {**run.record, COMMITTED: self.table}

    def restore(self, configs: Iterable[Config]) -> int:
        """Put archived runs back as run folders, where there is no record yet; return how many."""
        from benchmarks.run.records import RunFolder  # late: archives are read where there is no PyTorch, too

        restored = 0
        for config in configs:
            folder, archived = RunFolder.of(config), self.runs.get(identity(config)) if self.runs else None
            if archived is None or folder.result.exists():
                continue
            content = {**archived.config, **{key: to_dict(config)[key] for key in CIRCUMSTANCES}}
            write_text(folder.path / "config.yaml", yaml.safe_dump(content, sort_keys=False))
            write_text(folder.metrics, "".join(json.dumps(row) + "\n" for row in archived.history))
            folder.finish({**archived.record, COMMITTED: self.table})
            restored += 1
        return restored


def archived_tables() -> list[str]:
    """List the tables and figures whose records are committed."""
    return sorted(path.stem for path in RECORDS.glob("*.parquet"))


def collect(table: str, how: Mapping[str, Any], configs: Iterable[Config]) -> Archive:
    """Collect the recorded ones among runs.

    Args:
        table: name of the table or figure.
        how: see `Archive`.
        configs: of its runs.
    """
    from benchmarks.run.inputs import current_record
    from benchmarks.run.records import RunFolder

    runs: dict[str, ArchivedRun] = {}
    for config in configs:
        folder = RunFolder.of(config)
        record = current_record(config)
        if record is not None and record["status"] != DAMAGED:
            content = {key: value for key, value in to_dict(config).items() if key not in CIRCUMSTANCES}
            kept = {key: value for key, value in record.items() if key not in ("trace", COMMITTED)}
            runs[identity(config)] = ArchivedRun(content, kept, thinned(folder.history(), record))
    return Archive(table, how, runs)


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
        for name in ("identity", "config", "record", "history"):
            digest.update(str(row[name]).encode() + b"\0")
    return digest.hexdigest()
