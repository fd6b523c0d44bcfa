"""What loading a data set gives."""

from dataclasses import dataclass, field

from benchmarks.recommenders.data import ClickLog


@dataclass(frozen=True)
class LoadedLog:
    """A click log with its provenance: checksums of the files read, facts worth showing, real or generated."""

    log: ClickLog
    checksums: dict[str, str] = field(default_factory=dict)
    notes: dict[str, float | str] = field(default_factory=dict)
    real: bool = True
