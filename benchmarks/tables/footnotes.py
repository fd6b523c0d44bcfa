"""Lines below a table: what ran, on what, at which cost, and what the signs mean."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from benchmarks.run.record_schema import predicts_constant
from benchmarks.tables.cells import Cell
from benchmarks.tables.chosen import report_name
from benchmarks.tables.data_lines import data_lines
from benchmarks.tables.layout import shown
from benchmarks.tables.schema import Rates, matches
from benchmarks.tables.spec import TableSpec
from benchmarks.tables.summary import INCOMPARABLE, PAPER_SCALE, CellOutcome, Entry, Record
from benchmarks.utils.overrides import without
from benchmarks.utils.text import code_title, duration

_LISTED = 6  # cells of a row that are listed one by one at most
_USES = "Beyond a forward pass and the error:"
"""Line above those on what the rule of each row uses."""


def describe_runs(spec: TableSpec, outcomes: Mapping[Cell, CellOutcome], entries: Sequence[Entry]) -> list[str]:
    """Describe scale, data, hardware, cost, commits, and what ± and the published numbers are: one line each.

    Args:
        spec: the table.
        outcomes: of its cells' runs.
        entries: what `summarise` makes of them.
    """
    records = _without_repeats(record for outcome in outcomes.values() for record in outcome.records)
    lines = [
        _scale_line(spec, entries[0].scale),
        *data_lines(records),
        *_incomparable_lines(spec, entries),
        *_machine_lines(records),
        _spread_line(entries),
        *_constant_lines(outcomes),
        *_control_lines(spec, entries),
        f"{'Ours' if spec.published_table else 'Numbers'}: {spec.file.selection}. All seeds count.",
        *_rate_lines(spec, entries[0].scale),
        _paper_line(spec),
    ]
    uses = _uses_lines(outcomes) if spec.file.uses else []
    return [*lines, *_profile_lines(spec, outcomes), *uses, *spec.file.notes]


def describe_gaps(entries: Sequence[Entry], sparse: bool = False) -> list[str]:
    """List the cells that are not done, those with the same status and reason in one line.

    Args:
        entries: of the whole table.
        sparse: count the missing ones and name only the rows and columns in which all are, see `TableFile.sparse`.
    """
    groups: dict[tuple[str, str, str], dict[Cell, None]] = {}
    for entry in entries:
        if entry.status in ("done", "quoted", INCOMPARABLE):
            continue
        count = f"{entry.n + entry.without} of {entry.expected} seeds done" if entry.expected else ""
        groups.setdefault((entry.status, count, entry.reason), {})[entry.cell] = None
    runnable = dict.fromkeys(entry.cell for entry in entries if entry.status != "quoted")
    return [
        f"{status} ({'; '.join(part for part in (count, reason) if part) or 'no reason recorded'}): "
        f"{(_counted if sparse and status == 'missing' and len(cells) > _LISTED else _names)(cells, runnable)}"
        for (status, count, reason), cells in groups.items()
    ]


def _counted(cells: Collection[Cell], of: Collection[Cell]) -> str:
    """Count cells of a table, and name the rows and columns that consist of them."""
    others = [cell for cell in of if cell not in cells]
    rows = [row for row in dict.fromkeys(cell.row for cell in cells) if all(cell.row != row for cell in others)]
    columns = [
        column
        for column in dict.fromkeys(cell.column for cell in cells)
        if column and all(cell.column != column for cell in others)
    ]
    parts = [f"{len(cells)} of {len(of)} cells"]
    parts += [f"all in the row{'s' * (len(rows) > 1)} {', '.join(rows)}"] * bool(rows)
    parts += [f"all in the column{'s' * (len(columns) > 1)} {', '.join(columns)}"] * bool(columns)
    return "; ".join(parts)


def _names(cells: Collection[Cell], of: Collection[Cell]) -> str:
    """Name cells of a table, those that are most of a long row in few words."""
    single, most = [], []
    for row in dict.fromkeys(cell.row for cell in cells):
        own = [cell for cell in cells if cell.row == row]
        others = [cell.column for cell in of if cell.row == row and cell not in cells]
        if len(own) > max(_LISTED, len(others)):
            most.append(f"{row} in every column{' but ' * bool(others)}{', '.join(others)}")
        else:
            single += [cell.name for cell in own]
    return "; ".join([*most, *[", ".join(single)] * bool(single)])


def describe_rates(rates: Rates, scale: str) -> str:
    """Describe how the learning rates of a table are chosen."""
    factors = ", ".join(f"{factor:g}" for factor in rates.factors)
    short = "".join(f", {setting}" for setting in rates.settings.get(scale, ()))
    each, where = ("row", f" of {rates.column}") if rates.column else ("cell", "")
    more = "".join(
        f"; {pattern}: the mean of seeds {rates.seed} to {rates.seed + count - 1}"
        for pattern, count in rates.seeds.items()
    )
    order = ", tried from the middle of these on as long as that helps" if rates.walk else ""
    return (
        f"Learning rates: for every {each} the one that did best on validation of {factors} times the configured one,"
        f" in runs{where} with seed {rates.seed}{short}{more}{order}."
    )


def _paper_line(spec: TableSpec) -> str:
    if not spec.published_table:
        return "The paper reports no numbers for this table."
    return (
        f"The paper's numbers: {spec.file.paper_numbers}. They are shown only beside runs on the paper's own "
        "data set; whether the tolerance holds is said only of runs at the paper's scale."
    )


def _rate_lines(spec: TableSpec, scale: str) -> list[str]:
    """Tell how rates were chosen, and which cells of further rules have none; the table's own notes tell of its own."""
    cells = [cell for cell in spec.cells if cell.runs_at(scale)]
    chosen = [cell for cell in cells if dict(cell.chosen).get(scale)]
    if not chosen:
        return []
    rules = dict.fromkeys(cell.extra_rule for cell in chosen)
    reports = ", ".join(f"results/search/{report_name(spec.name, scale, rule)}.md" for rule in rules)
    line = f"{describe_rates(spec.file.rates, scale)[:-1]} ({reports})."
    configured = [cell for cell in cells if cell.extra_rule and cell not in chosen]
    return [f"{line} At the configured one, without a search: {_names(configured, cells)}." if configured else line]


def _scale_line(spec: TableSpec, scale: str) -> str:
    if not scale:
        return "Scale: none, nothing has run."
    if not spec.published_table:
        return f"Scale: {scale} ({spec.file.reduced.get(scale, 'there is no published protocol')})."
    if scale == PAPER_SCALE:
        return "Scale: paper (the published protocol)."
    distance = spec.file.reduced.get(scale, "shorter or smaller runs than the published protocol")
    return f"Scale: {scale} ({distance}); no verdict on the paper's numbers follows from it."


def _incomparable_lines(spec: TableSpec, entries: Sequence[Entry]) -> list[str]:
    """Name the cells without a relation to other rows because these ran on other data."""
    groups: dict[tuple[str, str], list[Cell]] = {}
    for entry in entries:
        if entry.status == INCOMPARABLE:
            groups.setdefault((entry.metric, entry.reason), []).append(entry.cell)
    cells = [entry.cell for entry in entries]
    return [
        f"No {spec.metrics[metric].label} for runs that are {reason}: {_names(of, cells)}."
        for (metric, reason), of in groups.items()
    ]


def _machine_lines(records: Sequence[Record]) -> list[str]:
    if not records:
        return []
    commits = dict.fromkeys(
        code_title(record.get("commit") or "unknown", bool(record.get("git_dirty"))) for record in records
    )
    versions = dict.fromkeys(
        f"{name} {version}" for record in records for name, version in record.get("versions", {}).items()
    )
    seconds = sum(float(record["seconds"]) for record in records)
    memory = max(float(record.get("peak_memory_mb") or 0) for record in records)
    peak = f", peak memory {memory:.0f} MB" if memory else ""
    return [
        f"Hardware: {', '.join(dict.fromkeys(str(record['device']) for record in records))}.",
        f"Cost: {duration(seconds)} in all for {len(records)} finished run{'s' * (len(records) != 1)}{peak}.",
        f"Commit: {', '.join(commits)}. Versions: {', '.join(versions) or 'not recorded'}.",
    ]


def _profile_lines(spec: TableSpec, outcomes: Mapping[Cell, CellOutcome]) -> list[str]:
    """List metrics one after the other: a line per row, with a group of numbers for each column."""
    lines = []
    for label, profile in spec.file.profiles.items():
        rows: dict[str, list[str]] = {}
        for cell, outcome in outcomes.items():
            values: dict[str, list[float]] = {}
            for record in outcome.records if matches(profile.cells, cell.row, cell.name) else ():
                for key, value in record["metrics"].items():
                    if any(fnmatchcase(key, pattern) for pattern in profile.records):
                        values.setdefault(key, []).append(float(value))
            if values:
                means = ", ".join(shown(sum(found) / len(found), profile.decimals) for found in values.values())
                rows.setdefault(cell.row, []).append(f"{cell.column} {means}".strip())
        lines += [f"{label}, {row}: {'; '.join(groups)}." for row, groups in rows.items()]
    return lines


def _uses_lines(outcomes: Mapping[Cell, CellOutcome]) -> list[str]:
    """Describe what the rule of each row uses beyond a forward pass and the output error."""
    rows: dict[str, dict[str, dict[str, None]]] = {}
    for cell, outcome in outcomes.items():
        for record in outcome.records:
            if record.get("uses"):  # nothing is said of a run that never trained
                rows.setdefault(cell.row, {}).setdefault(_uses(record["uses"]), {})[cell.column] = None
    lines = [_USES] * bool(rows)
    for row, (first, *others) in ((row, found.items()) for row, found in rows.items()):
        elsewhere = "".join(f"; in {', '.join(columns)}: {text}" for text, columns in others)
        lines.append(f"{row} uses {first[0]}{elsewhere}.")
    return lines


_TRANSPORTED = {
    "all": "the forward weights",
    "signs": "the signs of the forward weights",
    "gains": "the gains of the normalisations",
}
"""`Uses.forward_weights` in words; records of other versions may hold other values, which are shown as they are."""


def _uses(uses: Mapping[str, Any]) -> str:
    parts = []
    if (transported := uses["forward_weights"]) != "none":
        parts.append(_TRANSPORTED.get(transported, f"the forward weights ({transported})"))
    if uses["sequential"]:
        parts.append("a sequential backward pass")
    if waves := uses.get("waves"):
        parts.append(f"{waves} {'wave' if waves == 1 else 'waves'} of signals between neighbouring points")
    if uses["bp_batches"]:
        parts.append(
            "exact backpropagation" + (f" on {uses['bp_batches']:.1%} of the batches" if uses["bp_batches"] < 1 else "")
        )
    if uses["extra_forwards"]:
        passes = "pass" if uses["extra_forwards"] == 1 else "passes"
        parts.append(f"the work of {uses['extra_forwards']:g} more forward {passes} a batch")
    if uses["state"] != "none":
        parts.append(uses["state"])
    return ", ".join(parts) or "nothing else"


def _spread_line(entries: Sequence[Entry]) -> str:
    counts = sorted({entry.n for entry in entries if entry.n})
    if not counts:
        none = "has a value" if any(entry.without for entry in entries) else "has run"
        return f"± would be the sample standard deviation over seeds; no seed {none}."
    if counts == [1]:
        return "One seed per cell (n = 1): no spread is given."
    n = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"± is the sample standard deviation over n seeds; n = {n}."


def _constant_lines(outcomes: Mapping[Cell, CellOutcome]) -> list[str]:
    """Name the cells with runs whose model tells no test example from another."""
    names = []
    for cell, outcome in outcomes.items():
        if dead := sum(map(predicts_constant, outcome.records)):
            names.append(f"{cell.name} ({dead} of {len(outcome.records)})")
    return [f"Models that predict the same for every test example: {', '.join(names)}."] if names else []


def _control_lines(spec: TableSpec, entries: Sequence[Entry]) -> list[str]:
    """Name the cells whose rule gains at most one standard deviation, of either, over the frozen control."""
    metric, settings = next(iter(spec.metrics.items()))
    shown = [(entry, entry.mean) for entry in entries if entry.metric == metric and entry.mean is not None]
    frozen = {_apart_from_rule(entry.cell): (entry, mean) for entry, mean in shown if entry.cell.control}
    sign = 1 if settings.higher_is_better else -1
    names = []
    for entry, mean in shown:
        place = _apart_from_rule(entry.cell)
        if entry.cell.control or entry.cell.rule == "bp" or place not in frozen:
            continue
        control, control_mean = frozen[place]
        if entry.data == control.data and sign * (mean - control_mean) <= max(entry.std or 0.0, control.std or 0.0):
            names.append(entry.cell.name)
    line = f"Not better than the frozen control by more than one standard deviation in {settings.label}: "
    return [f"{line}{', '.join(names)}."] if names else []


def _apart_from_rule(cell: Cell) -> tuple[str, ...]:
    return without((*cell.overrides, *cell.members), "rule")


def _without_repeats(records: Iterable[Record]) -> list[Record]:
    """Drop repeated records: a run that serves two cells costs once."""
    unique: dict[object, Record] = {}
    for record in records:
        key = (record["config_hash"], record["seed"]) if record.get("config_hash") else id(record)
        unique.setdefault(key, record)
    return list(unique.values())
