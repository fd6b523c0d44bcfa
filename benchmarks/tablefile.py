"""What a file in `configs/table/` may say, and reading one."""

from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar

import yaml
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from benchmarks.errors import ConfigError

TABLE_FOLDER = Path(__file__).parent.parent / "configs" / "table"
SCALES = ("paper", "mini", "smoke")

Schema = TypeVar("Schema")


@dataclass(frozen=True)
class Metric:
    """How a metric of a table is found in a record and shown.

    Attributes:
        record: key in a record's metrics, e.g. "test/accuracy".
        label: words for a heading, e.g. "accuracy (%)".
        factor: what the record's value is multiplied by (100 turns a fraction into percent).
        decimals: digits after the point in Markdown and LaTeX.
        higher_is_better: which way the metric improves.
    """

    record: str = MISSING
    label: str = MISSING
    factor: float = 1.0
    decimals: int = 2
    higher_is_better: bool = True


@dataclass(frozen=True)
class Tolerance:
    """How far from the published number a mean may lie.

    Attributes:
        points: largest accepted distance in the table's unit.
        times: a metric of the same cell whose published number multiplies `points`
            (`points: 2, times: alignment_std` is "within two published standard deviations"); "" for none.
        or_better: accept any distance in the better direction.
    """

    points: float = MISSING
    times: str = ""
    or_better: bool = False


@dataclass(frozen=True)
class TableFile:
    """The content of a table's file. Patterns such as "gcn/*" match a cell's row or its "row:column".

    Attributes:
        title: what the table reports.
        heading: name as printed; by default "Table" and what follows in the file's name.
        reference: the published table that names rows and columns; "" where the paper has no such table.
        rows, columns: the names, where no published table gives them.
        row, column: how names split into fields, e.g. "{model}/{rule}".
        overrides: configuration of a cell; `{field}`, `{row}` and `{column}` are filled in
            (a brace that is meant as such is doubled).
        overrides_for: pattern → overrides added to the cells it matches.
        names: field → word in the table → word in the configuration, where the two differ.
        members: pattern → one override per run that the cell averages over (a mean over scenes).
        only: scale → overrides, of which a run must have one to take place at that scale; without an entry all do.
        data: name of the paper's data set as a record gives it; a template that may hold `*`.
        metrics: metric of the reference → `Metric`.
        seeds: scale → number of seeds.
        tolerance: pattern of a rule or "rule:metric" → `Tolerance`; the first match counts.
        quoted: patterns of cells that the paper quotes from others: shown, never run.
        added_columns: columns of ours beside the reference's, in every row.
        extras: whether the reference's extra cells belong to the table.
        controls: where the frozen control comes from: another table's name, or a rule; "" for none.
        figures: drawn after the table, from runs that the table has made.
        by_name_only: not one of `all`, because it takes long; it has to be asked for.
        selection: which checkpoint the numbers belong to.
        paper_numbers: what the published numbers are.
        reduced: scale → how it departs from the paper's protocol.
        notes: lines always printed below the table.
        cost_seconds: scale → pattern → rough seconds of one run; `default` for the rest. Under `stand_in` those of
            the mini scale without real data, if they differ.
    """

    title: str = MISSING
    heading: str = ""
    reference: str = ""
    rows: list[str] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    row: str = "{row}"
    column: str = "{column}"
    overrides: list[str] = MISSING
    overrides_for: dict[str, list[str]] = field(default_factory=dict)
    names: dict[str, dict[str, str]] = field(default_factory=dict)
    members: dict[str, list[str]] = field(default_factory=dict)
    only: dict[str, list[str]] = field(default_factory=dict)
    data: str = MISSING
    metrics: dict[str, Any] = MISSING
    seeds: dict[str, int] = MISSING
    tolerance: dict[str, Any] = field(default_factory=dict)
    quoted: list[str] = field(default_factory=list)
    added_columns: list[str] = field(default_factory=list)
    extras: bool = False
    controls: str = ""
    figures: list[str] = field(default_factory=list)
    by_name_only: bool = False
    selection: str = MISSING
    paper_numbers: str = "one run with one seed"
    reduced: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    cost_seconds: dict[str, Any] = MISSING


def known_tables(folder: Path = TABLE_FOLDER) -> tuple[str, ...]:
    """Names of the tables that have a file, sorted."""
    return tuple(sorted(path.stem for path in folder.glob("*.yaml")))


def read_table_file(name: str, folder: Path = TABLE_FOLDER) -> TableFile:
    """The file of the table called `name`, with metrics and tolerances typed.

    Raises:
        ConfigError: no such table (the message lists those there are), or a file that cannot be used.
    """
    if name not in known_tables(folder):
        known = ", ".join(known_tables(folder)) or "none"
        raise ConfigError(f"unknown table '{name}'; known: {known}")
    path = folder / f"{name}.yaml"
    try:
        content = OmegaConf.load(path)
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"table file {path.name} is not valid YAML: {_first_line(error)}") from None
    table = _typed(TableFile, content, path.name)
    for key, metric in table.metrics.items():
        table.metrics[key] = _typed(Metric, metric, f"{path.name}, metric '{key}'")
    for key, tolerance in table.tolerance.items():
        table.tolerance[key] = _typed(Tolerance, tolerance, f"{path.name}, tolerance '{key}'")
    for scale, hints in table.cost_seconds.items():
        table.cost_seconds[scale] = _seconds(hints, f"{path.name}, cost_seconds of '{scale}'")
    _check_scales(table, path.name)
    return table


def matches(pattern: str, *names: str) -> bool:
    """Whether a shell-style pattern matches one of the names."""
    return any(fnmatchcase(name, pattern) for name in names)


def _typed(schema: type[Schema], content: Any, where: str) -> Schema:
    try:
        merged = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), content))
    except (OmegaConfBaseException, ValueError, TypeError) as error:
        raise ConfigError(f"table file {where}: {_first_line(error)}") from None
    assert isinstance(merged, schema)
    return merged


def _seconds(hints: Any, where: str) -> dict[str, float]:
    """Checked by hand: OmegaConf refuses whole numbers in nested dictionaries of floats."""
    numbers = isinstance(hints, dict) and all(
        isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0 for value in hints.values()
    )
    if not numbers:
        raise ConfigError(f"table file {where}: must map patterns to seconds, got {hints!r}")
    return {str(pattern): float(value) for pattern, value in hints.items()}


def _check_scales(table: TableFile, where: str) -> None:
    unknown = [scale for scale in table.only if scale not in SCALES]
    if unknown:
        raise ConfigError(f"table file {where}: only: unknown scale '{unknown[0]}'; known: {', '.join(SCALES)}")
    missing = [scale for scale in SCALES if table.seeds.get(scale, 0) < 1]
    if missing:
        raise ConfigError(f"table file {where}: seeds must give at least 1 for {', '.join(missing)}")
    costed = [*SCALES, *(["stand_in"] if "stand_in" in table.cost_seconds else [])]
    missing = [scale for scale in costed if "default" not in table.cost_seconds.get(scale, {})]
    if missing:
        raise ConfigError(f"table file {where}: cost_seconds needs a `default` for {', '.join(missing)}")


def _first_line(error: Exception) -> str:
    """OmegaConf adds lines of internals to its messages; YAML's line and column are worth keeping."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"{error.problem}, line {error.problem_mark.line + 1}"
    lines = str(error).splitlines()
    key = next((line.split(":", 1)[1].strip() for line in lines[1:] if "full_key" in line), "")
    return f"{lines[0]} (at {key})" if key else lines[0]
