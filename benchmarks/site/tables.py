"""Pages of tables: plots of their seeds, their cells to sort and filter, and the notes below the committed table."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from benchmarks.site.results import Result, TableResults
from benchmarks.tables.layout import BLANK, VERDICTS, mean_and_std, shown, signed
from benchmarks.tables.schema import Metric
from benchmarks.utils.text import markdown_page

SCRIPTS = ("plotly.min.js", "plots.js", "cells.js", "element.js", "run.js")
"""Scripts of a table's page, besides that with its data."""


@dataclass(frozen=True)
class _Column:
    """Column of the table of cells.

    Attributes:
        head: its heading.
        show: a number's entry, as HTML.
        key: what to sort by; None: the entry's text.
        title: explanation of the heading.
        filtered: whether a field above the table chooses among its values.
    """

    head: str
    show: Callable[[Result], str]
    key: Callable[[Result], float | None] | None = None
    title: str = ""
    filtered: bool = False


def table_page(table: TableResults, committed: str, up: str) -> str:
    """Return the page of a table as Markdown.

    Args:
        table: its numbers and runs.
        committed: its committed Markdown, whose notes are shown.
        up: path from the page's folder to the root of the site.
    """
    spec = table.spec
    plain, notes = _parts(committed)
    scripts = [f"{spec.name}.data.js", *(f"{up}assets/{name}" for name in SCRIPTS)]
    return markdown_page(
        f"{spec.heading}. {spec.title}",
        _facts(table),
        _command(table),
        "## Cells",
        f"A heading sorts, the fields above filter. A number opens {_opened(table)}.",
        cells_table(table.shown, spec.metrics),
        "## Seeds, means and the paper's numbers",
        '<div id="plots"></div>',
        "## Notes",
        notes,
        "## Files",
        _files(table),
        f'??? note "The table as it is committed"\n\n{_indented(plain)}',
        "\n".join(f'<script src="{script}" defer></script>' for script in scripts),
    )


def cells_table(results: Sequence[Result], metrics: Mapping[str, Metric]) -> str:
    """Return numbers as an HTML table, with fields that filter it and a dialog for the runs behind a number."""
    columns = _columns(results, metrics)
    heads = "".join(
        f'<th scope="col" aria-sort="none"><button type="button" title="{escape(column.title)}">{column.head}</button>'
        "</th>"
        for column in columns
    )
    lines = "\n".join(_line(result, columns) for result in results)
    return (
        f"{_filters(results, columns)}\n"
        '<div class="cells-frame"><table class="cells" id="numbers" data-search-exclude>\n'
        f"<thead><tr>{heads}</tr></thead>\n"
        f"<tbody>\n{lines}\n</tbody>\n</table></div>\n"
        '<dialog id="run"></dialog>'
    )


def _columns(results: Sequence[Result], metrics: Mapping[str, Metric]) -> list[_Column]:
    """Choose the columns that tell the numbers apart, and those that hold them."""

    def digits(result: Result) -> int:
        return metrics[result.metric].decimals

    def label(result: Result) -> str:
        return escape(metrics[result.metric].label)

    places = [_Column("Row", lambda result: escape(result.row))]
    if len({result.column for result in results}) > 1:
        places.append(_Column("Column", lambda result: escape(result.column), filtered=True))
    if len({result.metric for result in results}) > 1:
        places.append(_Column("Metric", label, filtered=True))
    paper = [
        _Column("Paper", lambda result: shown(result.paper, digits(result)), lambda result: result.paper),
        _Column("Δ", lambda result: signed(result.difference, digits(result)), lambda result: result.difference,
                "Ours minus the paper's"),
        _Column("✓/✗", lambda result: VERDICTS[result.within],
                lambda result: None if result.within is None else float(result.within),
                "Whether the tolerance laid down for the table holds"),
    ]  # fmt: skip
    ours = _Column(
        "Ours",
        lambda result: f'<a href="#{result.anchor}">{escape(_ours(result, digits(result)))}</a>',
        lambda result: result.mean,
        "Mean ± sample standard deviation over seeds",
    )
    compared = any(result.paper is not None for result in results)
    numbers = [paper[0], ours, *paper[1:]] if compared else [ours]
    data = _Column("Data", lambda result: escape(result.data) or BLANK, filtered=True)
    return [*places, *numbers, _Column("Seeds", lambda result: str(result.n), lambda result: result.n), data]


def _line(result: Result, columns: Sequence[_Column]) -> str:
    entries = []
    for column in columns:
        key = "" if column.key is None else f' class="number" data-key="{_key(column.key(result))}"'
        entries.append(f"<td{key}>{column.show(result)}</td>")
    kind = ' class="control"' if result.cell is not None and result.cell.control else ""
    return f'<tr id="{escape(result.anchor)}" data-cell="{escape(result.name)}"{kind}>{"".join(entries)}</tr>'


def _filters(results: Sequence[Result], columns: Sequence[_Column]) -> str:
    """Return a field for words, and one for each column of few different values."""
    fields = ['<input type="search" id="filter" placeholder="Filter, e.g. gcn dfa" aria-label="Filter">']
    for place, column in enumerate(columns):
        values = list(dict.fromkeys(column.show(result) for result in results))
        if column.filtered and len(values) > 1:
            options = "".join(f"<option>{value}</option>" for value in values)
            fields.append(
                f'<select data-column="{place}" aria-label="{column.head}"><option value="">{column.head}: all</option>'
                f"{options}</select>"
            )
    return f'<div class="filters">{"".join(fields)}<output id="count"></output></div>'


def _ours(result: Result, digits: int) -> str:
    return result.status if result.mean is None else mean_and_std(result.mean, result.std, digits)


def _key(value: float | None) -> str:
    return "" if value is None else f"{value:.10g}"


def _facts(table: TableResults) -> str:
    recorded = len(table.archive.runs)
    complete = all(len(result.seeds) == result.n for result in table.shown)
    extent = ", and the table is what they give" if complete else "; not all of its numbers have theirs"
    records = (
        f"**{recorded} runs** are committed as its records{extent}"
        if recorded
        else "**Records not kept**: the runs behind it were not committed, so that its numbers cannot be opened down "
        "to single runs"
    )
    return (
        f"Scale: **{table.scale or 'none'}** ([what that is](../../docs/suite.md#scales)). {records} "
        "([what records are](../../docs/records.md))."
    )


def _opened(table: TableResults) -> str:
    if not table.archive.runs:
        return "the command that makes its runs"
    return "the runs behind it: learning curves, the command that makes them, their records and where these come from"


def _command(table: TableResults) -> str:
    name = table.spec.name.removeprefix("table_").replace("_", "-")
    scale = f" SCALE={table.scale}" if table.scale else ""
    return f"```bash\nmake reproduce-table-{name}{scale}\n```"


def _parts(committed: str) -> tuple[str, str]:
    """Split a committed table in Markdown into its tables and the list of notes."""
    body = committed.split("\n", 1)[1].strip()
    tables, _, notes = body.rpartition("\n\n")
    return (tables, notes) if notes.startswith("- ") else (body, "")


def _files(table: TableResults) -> str:
    name = table.spec.name
    lines = [f"[{name}.{suffix}]({name}.{suffix})" for suffix in ("csv", "tex")]
    if table.archive.runs:
        lines.append(f"[{name}.parquet](../records/{name}.parquet): a row for each run")
    return "\n".join(f"- {line}" for line in lines)


def _indented(text: str) -> str:
    """Indent a block, its headings as bold lines, so that they stay out of the page's contents."""
    lines = (f"**{line.removeprefix('## ')}**" if line.startswith("## ") else line for line in text.splitlines())
    return "\n".join(f"    {line}".rstrip() for line in lines)
