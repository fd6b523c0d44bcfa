"""What loading a data set gives."""

from dataclasses import dataclass, field

from benchmarks.recommenders.data import ClickLog


@dataclass(frozen=True)
class LoadedLog:
    """A click log with its provenance.

    Attributes:
        log: the rows.
        name: of the real data set, which says so where it is only a part of one; "" for a generated log.
        checksums: file name → sha256 of the files read.
        notes: facts worth showing.
    """

    log: ClickLog
    name: str = ""
    checksums: dict[str, str] = field(default_factory=dict)
    notes: dict[str, float | str] = field(default_factory=dict)
