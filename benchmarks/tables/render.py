"""Tables as CSV, Markdown and LaTeX."""

from collections.abc import Sequence

from benchmarks.tables.footnotes import describe_gaps
from benchmarks.tables.layout import Block, blocks_of
from benchmarks.tables.spec import TableSpec
from benchmarks.tables.summary import Entry
from benchmarks.utils.text import csv_text, markdown_list, markdown_page, markdown_table

CSV_COLUMNS = (
    "table", "row", "column", "metric", "paper", "mean", "std", "n",
    "difference", "within_tolerance", "scale", "data", "status",
)  # fmt: skip


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
    for block in blocks_of(spec, rows, reduced=True):
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
    notes = markdown_list([*_gap_lines(spec, rows), *footer])
    return markdown_page(f"{spec.heading}. {spec.title}", *parts, notes)


def to_latex(spec: TableSpec, rows: Sequence[Entry], footer: Sequence[str] = ()) -> str:
    """Format a `table` environment; needs the package booktabs. Reduced runs are shown without paper numbers."""
    # Not a caption: that would number the table a second time, and differently.
    title = escape_latex(f"{spec.heading}. {spec.title}")
    lines = [r"\begin{table}", r"\centering", rf"\textbf{{{title}}}\par\medskip"]
    for block in blocks_of(spec, rows, reduced=False):
        lines += _tabular(block)
    notes = [*_gap_lines(spec, rows), *footer]
    lines += [r"\par\medskip\footnotesize\raggedright"] if notes else []
    lines += [rf"{escape_latex(' '.join(note.split()))}\par" for note in notes]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "±": r"$\pm$", "Δ": r"$\Delta$", "×": r"$\times$", "β": r"$\beta$", "·": r"$\cdot$", "→": r"$\rightarrow$",
    "≤": r"$\leq$", "≥": r"$\geq$", "–": "--", "—": "---", "…": r"\ldots{}", "✓": "yes", "✗": "no",
    "↑": "better",
}  # fmt: skip


def escape_latex(text: str) -> str:
    """Escape text so that LaTeX prints it letter by letter."""
    return "".join(_LATEX.get(letter, letter) for letter in text)


def _tabular(block: Block) -> list[str]:
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


def _gap_lines(spec: TableSpec, rows: Sequence[Entry]) -> list[str]:
    return [f"Not complete: {line}" for line in describe_gaps(rows, spec.file.sparse)]


def _exact(value: float | None) -> str:
    return "" if value is None else f"{value:.10g}"


def _markdown_cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
