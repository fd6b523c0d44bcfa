"""Schema of the files in `configs/table/`, and their reader."""

from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from benchmarks.config import SCALES
from benchmarks.errors import ConfigError
from benchmarks.utils.paths import config_files
from benchmarks.utils.typed import omegaconf_reason, typed
from benchmarks.utils.values import check_known, is_number
from benchmarks.utils.yaml_files import read_yaml


@dataclass(frozen=True)
class Metric:
    """Metric of a table: where it is found in a record, and how it is shown.

    Attributes:
        record: key in a record's metrics, e.g. "test/accuracy", or of a number in the record itself, e.g. "seconds", or
            a metric at a step of training, e.g. "valid/perplexity@1000", if the run was evaluated there.
        record_for: pattern of a row or "row:column" → the key that takes its place there.
        label: words for a heading, e.g. "accuracy (%)".
        factor: what the record's value is multiplied by (100 turns a fraction into percent).
        decimals: digits after the point in Markdown and LaTeX.
        higher_is_better: which way the metric improves.
        relative_to: rows of the same column to which the value is set in relation: value / a for one; for two the share
            of the way from a to b, (value - a) / (b - a).
    """

    record: str = MISSING
    record_for: dict[str, str] = field(default_factory=dict)
    label: str = MISSING
    factor: float = 1.0
    decimals: int = 2
    higher_is_better: bool = True
    relative_to: list[str] = field(default_factory=list)

    def all_keys(self) -> set[str]:
        """Return all keys that the metric is found under."""
        return {self.record, *self.record_for.values()}

    def key(self, *names: str) -> str:
        """Return the key in the records of a cell with these names."""
        return next((key for pattern, key in self.record_for.items() if matches(pattern, *names)), self.record)


@dataclass(frozen=True)
class Tolerance:
    """Tolerance of a mean around the published number.

    Attributes:
        points: largest accepted distance in the table's unit.
        times: a metric of the same cell whose published number multiplies `points`
            (`points: 2, times: alignment_std` is "within two published standard deviations"); "" for none.
        or_better: accept any distance in the better direction; beyond `points` tables mark it as better.
    """

    points: float = MISSING
    times: str = ""
    or_better: bool = False


@dataclass(frozen=True)
class Profile:
    """Metrics of a run that are listed in one line, e.g. one for each layer.

    Attributes:
        records: patterns of the metrics' keys in a record, which are shown in the record's order.
        cells: pattern of the cells it is shown for.
        decimals: digits after the point.
    """

    records: list[str] = MISSING
    cells: str = "*"
    decimals: int = 2


@dataclass(frozen=True)
class Rates:
    """Learning rates that every cell of a table is tried with, to keep the best on validation.

    Attributes:
        factors: of the configured rate.
        column: where a row's rate is found for all of its columns; "": every cell has one of its own.
        seed: of the runs that decide; one that the table has only where the table reports the test set.
        seeds: pattern of a cell → how many seeds decide there, from `seed` on, by their mean; one by default.
        settings: scale → further overrides for them, to make them short.
        walk: try the middle factor and its neighbours, and others only while the best so far has an untried neighbour.
    """

    factors: list[float] = MISSING
    column: str = ""
    seed: int = 1000
    seeds: dict[str, int] = field(default_factory=dict)
    settings: dict[str, list[str]] = field(default_factory=dict)
    walk: bool = False


@dataclass(frozen=True)
class TableFile:
    """Content of a table's file. Patterns such as "gcn/*" match a cell's row or its "row:column".

    Attributes:
        base: another table whose file is read first; entries here replace or extend those there.
        title: what the table reports.
        heading: name as printed; by default "Table" and what follows in the file's name.
        reference: the published table that names rows and columns; "" where the paper has no such table.
        compared: whether the published numbers are of what is run here; if not, none is shown.
        rows, columns: the names, where no published table gives them.
        row, column: how names split into fields, e.g. "{model}/{rule}".
        overrides: configuration of a cell; `{field}`, `{row}` and `{column}` are filled in
            (a brace that is meant as such is doubled).
        overrides_for: pattern → overrides added to the cells it matches.
        overrides_at: scale → pattern → overrides added to the cells it matches at that scale alone.
        names: field → word in the table → word in the configuration, where the two differ.
        members: pattern → one override per run that the cell averages over (a mean over scenes).
        only: scale → overrides, of which a run must have one to take place at that scale; without an entry all do.
        data: name of the paper's data set as a record gives it; a template that may hold `*`.
        metrics: metric → `Metric`; all those of the reference, and others, which have no published number.
        added: row → columns of cells that the paper does not have.
        seeds: scale → number of seeds.
        seeds_for: scale → pattern → number of seeds of the cells it matches; the first match counts.
        rates: `Rates`; None where the configured learning rates stand.
        stand_in: whether generated data may take the place of data that are not here.
        tolerance: pattern of a rule or "rule:metric" → `Tolerance`; the first match counts.
        quoted: patterns of cells that the paper quotes from others: shown, never run.
        added_columns: columns of ours beside the reference's, in every row.
        extras: whether the reference's extra cells belong to the table.
        controls: where the frozen control comes from: another table's name, or a rule; "" for none.
        figures: drawn after the table, from runs that the table has made.
        by_name_only: not one of `all`, because it takes long; it has to be asked for.
        sparse: show only rows and columns in which something has run, and name the others below; the CSV holds all.
        selection: which checkpoint the numbers belong to.
        paper_numbers: what the published numbers are.
        reduced: scale → how it departs from the paper's protocol.
        profiles: what is listed below the table, one line a row: label → `Profile`.
        uses: whether lines below the table tell what the rule of each row takes beyond a forward pass and the error.
        notes: lines always printed below the table.
        cost_seconds: scale → pattern → rough seconds of one run; `default` for the rest. Under `stand_in` those of
            the mini scale without real data, under `paper_cuda` and `mini_cuda` those on a GPU, if they differ.
    """

    base: str = ""
    title: str = MISSING
    heading: str = ""
    reference: str = ""
    compared: bool = True
    rows: list[str] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    row: str = "{row}"
    column: str = "{column}"
    overrides: list[str] = MISSING
    overrides_for: dict[str, list[str]] = field(default_factory=dict)
    overrides_at: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    names: dict[str, dict[str, str]] = field(default_factory=dict)
    members: dict[str, list[str]] = field(default_factory=dict)
    only: dict[str, list[str]] = field(default_factory=dict)
    data: str = MISSING
    metrics: dict[str, Any] = MISSING
    added: dict[str, list[str]] = field(default_factory=dict)
    seeds: dict[str, int] = MISSING
    seeds_for: dict[str, dict[str, int]] = field(default_factory=dict)
    rates: Any = None
    stand_in: bool = True
    tolerance: dict[str, Any] = field(default_factory=dict)
    quoted: list[str] = field(default_factory=list)
    added_columns: list[str] = field(default_factory=list)
    extras: bool = False
    controls: str = ""
    figures: list[str] = field(default_factory=list)
    by_name_only: bool = False
    sparse: bool = False
    selection: str = MISSING
    paper_numbers: str = "one run with one seed"
    reduced: dict[str, str] = field(default_factory=dict)
    profiles: dict[str, Any] = field(default_factory=dict)
    uses: bool = False
    notes: list[str] = field(default_factory=list)
    cost_seconds: dict[str, Any] = MISSING


def known_tables(folder: Path | None = None) -> tuple[str, ...]:
    """List the names of the tables that have a file, sorted."""
    return tuple(config_files("table", folder))


def read_table_file(name: str, folder: Path | None = None) -> TableFile:
    """Read the file of the table called `name`, with metrics and tolerances typed.

    Raises:
        ConfigError: no such table (the message lists the known ones), or a file that cannot be used.
    """
    files = config_files("table", folder)
    check_known("table", name, files)
    path = files[name]
    content = _load(path)
    if content.get("base"):
        base = files.get(str(content.base), path)
        if base == path:
            raise ConfigError(f"table file {path.name}: there is no other table '{content.base}' to start from")
        content = OmegaConf.merge(_load(base), content)
    table = typed(TableFile, content, f"table file {path.name}")
    if table.rates is not None:
        table = replace(table, rates=typed(Rates, table.rates, f"table file {path.name}, rates"))
        if not table.rates.factors or min(table.rates.factors) <= 0:
            raise ConfigError(f"table file {path.name}, rates: factors must be positive numbers")
        if min(table.rates.seeds.values(), default=1) < 1:
            raise ConfigError(f"table file {path.name}, rates: seeds must be at least 1")
    for key, metric in table.metrics.items():
        table.metrics[key] = typed(Metric, metric, f"table file {path.name}, metric '{key}'")
    for key, tolerance in table.tolerance.items():
        table.tolerance[key] = typed(Tolerance, tolerance, f"table file {path.name}, tolerance '{key}'")
    for key, profile in table.profiles.items():
        table.profiles[key] = typed(Profile, profile, f"table file {path.name}, profile '{key}'")
    for scale, hints in table.cost_seconds.items():
        table.cost_seconds[scale] = _seconds(hints, f"{path.name}, cost_seconds of '{scale}'")
    _check_scales(table, path.name)
    return table


def _load(path: Path) -> Any:
    content = read_yaml(path, f"table file {path.name}")
    if not isinstance(content, dict):
        raise ConfigError(f"table file {path.name} has no keys")
    try:
        return OmegaConf.create(content)
    except (OmegaConfBaseException, ValueError) as error:
        raise ConfigError(f"table file {path.name} cannot be read: {omegaconf_reason(error)}") from None


def matches(pattern: str, *names: str) -> bool:
    """Return whether a shell-style pattern matches one of the names."""
    return any(fnmatchcase(name, pattern) for name in names)


def _seconds(hints: Any, where: str) -> dict[str, float]:
    """Check a mapping to seconds by hand, since OmegaConf refuses whole numbers in nested dictionaries of floats."""
    if not isinstance(hints, dict) or not all(is_number(value) and value >= 0 for value in hints.values()):
        raise ConfigError(f"table file {where}: must map patterns to seconds, got {hints!r}")
    return {str(pattern): float(value) for pattern, value in hints.items()}


def _check_scales(table: TableFile, where: str) -> None:
    for key, scales in (("only", table.only), ("overrides_at", table.overrides_at)):
        for scale in scales:
            check_known("scale", scale, SCALES, f"table file {where}: {key}: ")
    missing = [scale for scale in SCALES if table.seeds.get(scale, 0) < 1]
    if strange := [scale for scale in table.seeds_for if scale not in SCALES]:
        raise ConfigError(f"table file {where}: seeds_for knows no scale '{strange[0]}'; known: {', '.join(SCALES)}")
    if any(seeds < 1 for counts in table.seeds_for.values() for seeds in counts.values()):
        raise ConfigError(f"table file {where}: seeds_for must give at least 1")
    if missing:
        raise ConfigError(f"table file {where}: seeds must give at least 1 for {', '.join(missing)}")
    special = ["stand_in", *(f"{scale}_cuda" for scale in SCALES)]
    if strange := [key for key in table.cost_seconds if key not in (*SCALES, *special)]:
        raise ConfigError(f"table file {where}: cost_seconds: unknown '{strange[0]}'")
    costed = [*SCALES, *(extra for extra in special if extra in table.cost_seconds)]
    missing = [scale for scale in costed if "default" not in table.cost_seconds.get(scale, {})]
    if missing:
        raise ConfigError(f"table file {where}: cost_seconds needs a `default` for {', '.join(missing)}")
