"""Tables as CSV, Markdown and LaTeX."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.tables.footnotes import describe_gaps
from benchmarks.tables.spec import TableSpec
from benchmarks.tables.summary import INCOMPARABLE, PAPER_SCALE, STAND_IN, Entry
from benchmarks.utils.text import csv_text, markdown_list, markdown_page, markdown_table

CSV_COLUMNS = (
    "table", "row", "column", "metric", "paper", "mean", "std", "n",
    "difference", "within_tolerance", "scale", "data", "status",
)  # fmt: skip
BLANK = "–"
VERDICTS = {True: "✓", False: "✗", None: BLANK}
"""Whether the tolerance holds, in a sign."""


@dataclass(frozen=True)
class _Group:
    """Printed columns that show one metric of one column of the table."""

    label: str
    heads: tuple[str, ...]


@dataclass(frozen=True)
class _Block:
    title: str
    groups: tuple[_Group, ...]
    body: tuple[tuple[str, tuple[str, ...]], ...]


def to_csv(spec: TableSpec, rows: Sequence[Entry]) -> str:
    """Format a table as CSV: one line per cell and metric, full precision, no footer."""
    lines: list[list[object]] = []
    for entry in rows:
        cell = entry.cell
        numbers = [_exact(value) for value in (entry.paper, entry.mean, entry.std)]
        within = "" if entry.within is None else str(entry.within)
        place = (spec.name, cell.row, cell.column, entry.metric)
        circumstances = (entry.scale, entry.data, entry.status)
        lines.append([*place, *numbers, entry.n, _exact(entry.difference), within, *circumstances])
    return csv_text(CSV_COLUMNS, lines)


def to_markdown(spec: TableSpec, rows: Sequence[Entry], footer: Sequence[str] = ()) -> str:
    """Format a heading, the table, the frozen control, then a list of what did not finish and of the footer's lines."""
    parts = []
    for block in _blocks(spec, rows, reduced=True):
        if block.title:
            parts.append(f"## {block.title}")
        heads = [
            head if head in ("Δ", "✓/✗") else f"{group.label} {head}".strip()
            for group in block.groups
            for head in group.heads
        ]
        body = [[label, *values] for label, values in block.body]
        header = [_markdown_cell(text) for text in ["", *heads]]
        lines = [[_markdown_cell(text) for text in line] for line in body]
        parts.append(markdown_table(header, lines))
    notes = markdown_list([*_gap_lines(rows), *footer])
    return markdown_page(f"{spec.heading}. {spec.title}", *parts, notes)


def to_latex(spec: TableSpec, rows: Sequence[Entry], footer: Sequence[str] = ()) -> str:
    """Format a `table` environment; needs the package booktabs. Reduced runs are shown without paper numbers."""
    # Not a caption: that would number the table a second time, and differently.
    title = escape_latex(f"{spec.heading}. {spec.title}")
    lines = [r"\begin{table}", r"\centering", rf"\textbf{{{title}}}\par\medskip"]
    for block in _blocks(spec, rows, reduced=False):
        lines += _tabular(block)
    notes = [*_gap_lines(rows), *footer]
    lines += [r"\par\medskip\footnotesize\raggedright"] if notes else []
    lines += [rf"{escape_latex(' '.join(note.split()))}\par" for note in notes]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "±": r"$\pm$", "Δ": r"$\Delta$", "×": r"$\times$", "β": r"$\beta$", "·": r"$\cdot$", "→": r"$\rightarrow$",
    "≤": r"$\leq$", "≥": r"$\geq$", "–": "--", "—": "---", "…": r"\ldots{}", "✓": "yes", "✗": "no",
}  # fmt: skip


def escape_latex(text: str) -> str:
    """Escape text so that LaTeX prints it letter by letter."""
    return "".join(_LATEX.get(letter, letter) for letter in text)


def _blocks(spec: TableSpec, rows: Sequence[Entry], reduced: bool) -> list[_Block]:
    """Lay out the table proper, the frozen control, and each metric that the paper does not report.

    `reduced`: show paper numbers beside reduced runs too.
    """
    blocks = []
    reported = [entry for entry in rows if entry.metric not in spec.added_metrics]
    for control, title in ((False, ""), (True, "Frozen control")):
        entries = [entry for entry in reported if entry.cell.control is control]
        if entries:
            blocks.append(_block(spec, entries, title, reduced))
    for metric in spec.added_metrics:
        entries = [entry for entry in rows if entry.metric == metric and entry.cell.rule]
        if entries:
            blocks.append(_block(spec, entries, _with_capital(spec.metrics[metric].label), reduced))
    return blocks


def _block(spec: TableSpec, entries: Sequence[Entry], title: str, reduced: bool) -> _Block:
    metrics = list(dict.fromkeys(entry.metric for entry in entries))
    places = {(entry.cell.row, entry.cell.column, entry.metric): entry for entry in entries}
    columns = [column for column in spec.columns if any(column == key[1] for key in places)]
    rows = [row for row in spec.rows if any(row == key[0] for key in places)]
    if spec.file.sparse:
        filled = [key for key, entry in places.items() if entry.mean is not None]
        columns = [column for column in columns if any(column == key[1] for key in filled)] or columns
        rows = [row for row in rows if any(row == key[0] for key in filled)] or rows
    by_column = {column: [e for e in entries if e.cell.column == column and e.status != "quoted"] for column in columns}
    tagged_columns = {column for column in columns if column and _all_stand_in(by_column[column])}
    untagged = [entry for entry in entries if entry.cell.column not in tagged_columns]
    tagged_rows = {row for row in rows if _all_stand_in([e for e in untagged if e.cell.row == row])}
    scale = entries[0].scale
    counted = len({entry.expected for entry in entries if entry.expected}) > 1

    groups = []
    renderers: list[tuple[str, str, Callable[[Entry | None], list[str]]]] = []
    for column in columns:
        for metric in metrics:
            parts = [_tag(column, column in tagged_columns)] if column else []
            parts += [spec.metrics[metric].label] if len(metrics) > 1 or not column else []
            label = " ".join(parts)
            if not by_column[column]:
                groups.append(_Group(label, ("paper (quoted)",)))
                renderers.append((column, metric, lambda e: _quoted_values(spec, e, reduced)))
                continue
            ours = f"ours{'' if scale in (PAPER_SCALE, '') else ', ' + scale} (mean ± std)"
            ours = ours if spec.published_table else "(mean ± std)"
            beside = [_paper(entry, reduced) for entry in by_column[column] if entry.metric == metric]
            compared = metric not in spec.added_metrics and any(number is not None for number in beside)
            groups.append(_Group(label, ("paper", ours, "Δ", "✓/✗") if compared else (ours,)))
            show = _Values(spec, compared, reduced, counted, frozenset(tagged_columns), frozenset(tagged_rows))
            renderers.append((column, metric, show))
    body = []
    for row in rows:
        values = [text for column, metric, show in renderers for text in show(places.get((row, column, metric)))]
        body.append((_tag(row, row in tagged_rows), tuple(values)))
    return _Block(title, tuple(groups), tuple(body))


@dataclass(frozen=True)
class _Values:
    """Formatter of a cell of a group: our value alone, or the paper's, ours, the difference and the verdict.

    Attributes:
        compared: whether any row of the group has a value of the paper's to show.
        reduced: show it beside reduced runs too.
        counted: name the number of seeds, which differs between cells.
        tagged_columns, tagged_rows: where the heading says that the data are a stand-in.
    """

    spec: TableSpec
    compared: bool
    reduced: bool
    counted: bool
    tagged_columns: frozenset[str]
    tagged_rows: frozenset[str]

    def __call__(self, entry: Entry | None) -> list[str]:
        if entry is None:
            return [BLANK] * (4 if self.compared else 1)
        digits = self.spec.metrics[entry.metric].decimals
        tagged = entry.cell.column in self.tagged_columns or entry.cell.row in self.tagged_rows
        ours = _ours(entry, digits)
        if self.counted and entry.n and entry.status == "done":
            ours += f" (n = {entry.n})"
        if entry.mean is not None and entry.data != "real" and not (tagged and entry.data == STAND_IN):
            ours += f" [{entry.data}]"
        if not self.compared:
            return [ours]
        paper = _paper(entry, self.reduced)
        difference = None if paper is None or entry.mean is None else entry.mean - paper
        return [shown(paper, digits), ours, signed(difference, digits), VERDICTS[entry.within]]


def _paper(entry: Entry, reduced: bool) -> float | None:
    return entry.published if reduced else entry.paper


def _quoted_values(spec: TableSpec, entry: Entry | None, reduced: bool) -> list[str]:
    if entry is None:
        return [BLANK]
    return [shown(_paper(entry, reduced), spec.metrics[entry.metric].decimals)]


def _ours(entry: Entry, digits: int) -> str:
    if entry.mean is None:
        return BLANK if entry.status == INCOMPARABLE else entry.status
    text = mean_and_std(entry.mean, entry.std, digits)
    if entry.status == "done":
        return text
    return f"{text} ({entry.n} of {entry.expected} seeds{'' if entry.status == 'partial' else ', ' + entry.status})"


def _tabular(block: _Block) -> list[str]:
    width = sum(len(group.heads) for group in block.groups)
    spans, rules, start = [], [], 2
    for group in block.groups:
        end = start + len(group.heads) - 1
        spans.append(rf"\multicolumn{{{len(group.heads)}}}{{c}}{{{escape_latex(group.label)}}}")
        rules.append(rf"\cmidrule(lr){{{start}-{end}}}")
        start = end + 1
    heads = [escape_latex(head) for group in block.groups for head in group.heads]
    title = [rf"\par\medskip {escape_latex(block.title)}\par\smallskip"] if block.title else []
    body = [" & ".join(escape_latex(text) for text in [label, *values]) + r" \\" for label, values in block.body]
    return [
        *title,
        rf"\begin{{tabular}}{{l{'r' * width}}}",
        r"\toprule",
        " & ".join(["", *spans]).strip() + r" \\",
        "".join(rules),
        " & ".join(["", *heads]).strip() + r" \\",
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
    ]


def _gap_lines(rows: Sequence[Entry]) -> list[str]:
    return [f"Not complete: {line}" for line in describe_gaps(rows)]


def _all_stand_in(entries: Sequence[Entry]) -> bool:
    kinds = {entry.data for entry in entries if entry.data}
    return kinds == {STAND_IN}


def _tag(name: str, stand_in: bool) -> str:
    return f"{name} ({STAND_IN})" if stand_in else name


def _with_capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def shown(value: float | None, digits: int) -> str:
    """Format a number, `BLANK` where there is none."""
    return BLANK if value is None else f"{value:.{digits}f}"


def mean_and_std(mean: float | None, std: float | None, digits: int) -> str:
    """Format a mean with its spread, if it has one."""
    return shown(mean, digits) if std is None else f"{shown(mean, digits)} ± {std:.{digits}f}"


def signed(value: float | None, digits: int) -> str:
    """Format a difference, `BLANK` where there is none."""
    # Adding zero turns the "-0.0" that rounding may leave into "+0.0".
    return BLANK if value is None else f"{round(value, digits) + 0.0:+.{digits}f}"


def _exact(value: float | None) -> str:
    return "" if value is None else f"{value:.10g}"


def _markdown_cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
