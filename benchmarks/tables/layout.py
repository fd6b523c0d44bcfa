"""What stands in the cells of a printed table, whatever it is printed in: blocks of labelled rows, values as text."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.tables.spec import TableSpec
from benchmarks.tables.summary import INCOMPARABLE, PAPER_SCALE, STAND_IN, Entry, only_better

BLANK = "–"
VERDICTS = {True: "✓", False: "✗", None: BLANK}
"""Whether the tolerance holds, in a sign."""
BETTER = "↑"
"""Sign of a tolerance that holds only because any better number passes."""


@dataclass(frozen=True)
class Group:
    """Printed columns that show one metric of one column of the table."""

    label: str
    heads: tuple[str, ...]


@dataclass(frozen=True)
class Block:
    """Part of a table with a title of its own: the groups of its columns, and its rows, each with a label."""

    title: str
    groups: tuple[Group, ...]
    body: tuple[tuple[str, tuple[str, ...]], ...]


def blocks_of(spec: TableSpec, rows: Sequence[Entry], reduced: bool) -> list[Block]:
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


def _block(spec: TableSpec, entries: Sequence[Entry], title: str, reduced: bool) -> Block:
    places = {(entry.cell.row, entry.cell.column, entry.metric): entry for entry in entries}
    rows, columns = _with_entries(spec, places)
    tagged = _Tagged.among(entries, rows, columns)
    metrics = list(dict.fromkeys(entry.metric for entry in entries))
    counted = len({entry.expected for entry in entries if entry.expected}) > 1

    groups: list[Group] = []
    shows: dict[tuple[str, str], Callable[[Entry | None], list[str]]] = {}
    for column in columns:
        ours = [entry for entry in entries if entry.cell.column == column and entry.status != "quoted"]
        if not ours and all(_paper(entry, reduced) is None for entry in entries if entry.cell.column == column):
            continue  # numbers of others, none of which may be shown
        for metric in metrics:
            parts = [_tag(column, column in tagged.columns)] if column else []
            parts += [spec.metrics[metric].label] if len(metrics) > 1 or not column else []
            beside = [_paper(entry, reduced) for entry in ours if entry.metric == metric]
            compared = metric not in spec.added_metrics and any(number is not None for number in beside)
            groups.append(Group(" ".join(parts), _heads(spec, entries[0].scale, bool(ours), compared)))
            judged = compared and _is_papers(entries[0].scale)
            values = _Values(spec, compared, judged, reduced, counted, tagged)
            shows[column, metric] = values if ours else values.quoted
    body = []
    for row in rows:
        texts = [text for place, show in shows.items() for text in show(places.get((row, *place)))]
        body.append((_tag(row, row in tagged.rows), tuple(texts)))
    return Block(title, tuple(groups), tuple(body))


def _with_entries(spec: TableSpec, places: Mapping[tuple[str, str, str], Entry]) -> tuple[list[str], list[str]]:
    """Return the rows and columns that have entries; in a sparse table, those with numbers if there are any."""

    def among(keys: Collection[tuple[str, str, str]]) -> tuple[list[str], list[str]]:
        return [row for row in spec.rows if any(row == key[0] for key in keys)], [
            column for column in spec.columns if any(column == key[1] for key in keys)
        ]

    rows, columns = among(places)
    if not spec.file.sparse:
        return rows, columns
    filled_rows, filled_columns = among([key for key, entry in places.items() if entry.mean is not None])
    return filled_rows or rows, filled_columns or columns


def _heads(spec: TableSpec, scale: str, ran: bool, compared: bool) -> tuple[str, ...]:
    """Return what stands over the values of a metric in a column, in which we have runs or numbers of others' alone."""
    if not ran:
        return ("paper (quoted)",)
    ours = f"ours{'' if _is_papers(scale) else ', ' + scale} (mean ± std)"
    ours = ours if spec.published_table else "(mean ± std)"
    judged = ("Δ", "✓/✗") if _is_papers(scale) else ()
    return ("paper", ours, *judged) if compared else (ours,)


def _is_papers(scale: str) -> bool:
    """Whether differences to the paper mean something: a run that is shorter or smaller differs for that alone."""
    return scale in (PAPER_SCALE, "")


@dataclass(frozen=True)
class _Tagged:
    """Columns and rows whose data are a stand-in throughout, which their headings say."""

    columns: frozenset[str]
    rows: frozenset[str]

    @classmethod
    def among(cls, entries: Sequence[Entry], rows: Sequence[str], columns: Sequence[str]) -> "_Tagged":
        """Find them among entries; rows by what stands in other columns."""

        def of_column(column: str) -> list[Entry]:
            return [entry for entry in entries if entry.cell.column == column and entry.status != "quoted"]

        tagged = frozenset(column for column in columns if column and _all_stand_in(of_column(column)))
        others = [entry for entry in entries if entry.cell.column not in tagged]
        return cls(tagged, frozenset(row for row in rows if _all_stand_in([e for e in others if e.cell.row == row])))

    def says(self, entry: Entry) -> bool:
        """Whether the heading of an entry's column or row says it."""
        return entry.cell.column in self.columns or entry.cell.row in self.rows


@dataclass(frozen=True)
class _Values:
    """Formatter of a cell of a group: our value alone, beside the paper's, or with difference and verdict, too.

    Attributes:
        compared: whether any row of the group has a value of the paper's to show.
        judged: whether the difference to it is shown, too, and whether it is within the tolerance.
        reduced: show it beside reduced runs too.
        counted: name the number of seeds, which differs between cells.
        tagged: where the heading says that the data are a stand-in.
    """

    spec: TableSpec
    compared: bool
    judged: bool
    reduced: bool
    counted: bool
    tagged: _Tagged

    def __call__(self, entry: Entry | None) -> list[str]:
        if entry is None:
            return [BLANK] * (1 + self.compared + 2 * self.judged)
        digits = self.spec.metrics[entry.metric].decimals
        ours = _ours(entry, digits)
        if self.counted and entry.n and entry.status == "done":
            ours += f" (n = {entry.n})"
        if entry.mean is not None and entry.data != "real" and not (self.tagged.says(entry) and entry.data == STAND_IN):
            ours += f" [{entry.data}]"
        if not self.compared:
            return [ours]
        paper = _paper(entry, self.reduced)
        if not self.judged:
            return [shown(paper, digits), ours]
        difference = None if paper is None or entry.mean is None else entry.mean - paper
        verdict = BETTER if only_better(self.spec, entry) else VERDICTS[entry.within]
        return [shown(paper, digits), ours, signed(difference, digits), verdict]

    def quoted(self, entry: Entry | None) -> list[str]:
        """Format a cell in which nothing is ours."""
        if entry is None:
            return [BLANK]
        return [shown(_paper(entry, self.reduced), self.spec.metrics[entry.metric].decimals)]


def _paper(entry: Entry, reduced: bool) -> float | None:
    return entry.published if reduced else entry.paper


def _ours(entry: Entry, digits: int) -> str:
    if entry.mean is None:
        return BLANK if entry.status == INCOMPARABLE else entry.status
    text = mean_and_std(entry.mean, entry.std, digits)
    if entry.status == "done":
        return text
    return f"{text} ({entry.n} of {entry.expected} seeds{'' if entry.status == 'partial' else ', ' + entry.status})"


def _all_stand_in(entries: Sequence[Entry]) -> bool:
    kinds = {entry.data for entry in entries if entry.data}
    return kinds == {STAND_IN}


def _tag(name: str, stand_in: bool) -> str:
    return f"{name} ({STAND_IN})" if stand_in else name


def _with_capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def shown(value: float | None, digits: int) -> str:
    """Format a number, `BLANK` where there is none."""
    # Adding zero turns the "-0.0" that rounding may leave into "0.0".
    return BLANK if value is None else f"{round(value, digits) + 0.0:.{digits}f}"


def mean_and_std(mean: float | None, std: float | None, digits: int) -> str:
    """Format a mean with its spread, if it has one."""
    return shown(mean, digits) if std is None else f"{shown(mean, digits)} ± {std:.{digits}f}"


def signed(value: float | None, digits: int) -> str:
    """Format a difference, `BLANK` where there is none."""
    return BLANK if value is None else f"{round(value, digits) + 0.0:+.{digits}f}"  # see `shown`
