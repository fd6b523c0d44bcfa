"""Numbers that documents quote from tables: each is a link to its place, from which it can be written anew."""

import re
from collections.abc import Mapping
from functools import cache

from benchmarks.errors import ResultsError
from benchmarks.site.results import TABLES, Result, TableResults, read_table
from benchmarks.tables.layout import mean_and_std, shown
from benchmarks.tables.published import load_reference

_QUOTE = re.compile(r'\[[^\[\]]+\]\(((?:\.\./)+results/tables)/(\w+)\.md#([\w-]+)(?: "(paper|best direct rule)")?\)')
_PUBLISHED = re.compile(r'\[[^\[\]]+\](\((?:\.\./)+benchmarks/tables/paper\.yaml "(\w+): ([^"]+)"\))')
_USES = re.compile(r"^- (\w+) uses (.+)\.$", re.MULTILINE)
_NOT_DIRECT = ("sequential", "exact backpropagation", "forward weights", "gains", "wave")
"""Words of what a rule uses that make it another kind of rule than a direct one."""


def with_numbers(text: str) -> str:
    """Return a document whose quoted numbers are those of the committed tables.

    A link to a number of a table, such as `../results/tables/table_3.md#gcn-dfa-cora-accuracy_percent`, gets the mean
    and its spread as words; with the title "paper" the published number beside it; with "best direct rule" the name and
    number of the direct rule whose mean is best in that column. A link to `paper.yaml` with a title such as
    "table_2: dcn/bp, auc" gets that published number.

    Raises:
        ResultsError: a link to a number that no table has.
    """
    return _PUBLISHED.sub(_published, _QUOTE.sub(_quoted, text))


def _quoted(match: re.Match[str]) -> str:
    folder, name, place, kind = match.groups()
    table = _table(name)
    result = table.find(place)
    digits = table.spec.metrics[result.metric].decimals
    if kind == "best direct rule":
        result = _best_direct(table, result)
        words = f"`{result.row}` {mean_and_std(result.mean, result.std, digits)}"
    elif kind == "paper":
        if result.paper is None:
            raise ResultsError(f"{name} has no number of the paper's at '{place}'")
        words = shown(result.paper, digits)
    else:
        words = mean_and_std(result.mean, result.std, digits)
    title = f' "{kind}"' if kind else ""
    return f"[{words}]({folder}/{name}.md#{result.anchor}{title})"


def _published(match: re.Match[str]) -> str:
    link, name, place = match.groups()
    row, *column, metric = place.split(", ")
    value = load_reference(name).value(row, "".join(column), metric)
    if value is None:
        raise ResultsError(f"the paper reports no number '{place}' in {name}")
    return f"[{value}]{link}"


def _best_direct(table: TableResults, beside: Result) -> Result:
    """Return the best number of a direct rule in the column and metric of a number."""
    uses = _uses(table.spec.name)
    direct = [
        result
        for result in table.results
        if (result.column, result.metric) == (beside.column, beside.metric) and _is_direct(uses.get(result.row, ""))
    ]
    sign = 1 if table.spec.metrics[beside.metric].higher_is_better else -1
    found = [(sign * result.mean, result) for result in direct if result.mean is not None]
    if not found:
        raise ResultsError(f"{table.spec.name} has no direct rule in column '{beside.column}'")
    return max(found, key=lambda pair: pair[0])[1]


def _is_direct(uses: str) -> bool:
    return bool(uses) and not any(word in uses for word in _NOT_DIRECT)


def _uses(name: str) -> Mapping[str, str]:
    """Return what each rule of a table uses, in the words below the table."""
    return dict(_USES.findall((TABLES / f"{name}.md").read_text(encoding="utf-8")))


@cache
def _table(name: str) -> TableResults:
    return read_table(name)
