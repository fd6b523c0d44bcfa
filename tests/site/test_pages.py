"""Pages of tables and rules, their order, and the reference of the library."""

import ast
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from benchmarks.site.api import api_pages, public_names
from benchmarks.site.documents import documents
from benchmarks.site.navigation import navigation
from benchmarks.site.results import TABLES, committed_tables, read_table
from benchmarks.site.rules import rules_script
from benchmarks.site.tables import table_page
from benchmarks.utils.paths import REPOSITORY


class _Numbers(HTMLParser):
    """Rows of the table of cells: anchor → texts of its entries."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: dict[str, list[str]] = {}
        self._anchor = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self._anchor = dict(attrs).get("id") or ""
            self.rows.setdefault(self._anchor, [])
        if tag == "td":
            self.rows[self._anchor].append("")

    def handle_data(self, data: str) -> None:
        if self.rows.get(self._anchor):
            self.rows[self._anchor][-1] += data.strip()


def _page(name: str) -> str:
    return table_page(read_table(name), (TABLES / f"{name}.md").read_text(encoding="utf-8"), "../../")


@pytest.mark.parametrize("name", committed_tables())
def test_a_page_shows_every_mean_of_the_committed_table(name: str) -> None:
    page, committed = _page(name), (TABLES / f"{name}.md").read_text(encoding="utf-8")
    shown = _Numbers()
    shown.feed(page.split("</table>")[0])
    for result in read_table(name).shown:
        entries = shown.rows[result.anchor]
        numbers = [re.sub(r" \(.*", "", entry) for entry in entries]
        if result.mean is not None:
            assert any(number and number in committed for number in numbers if "." in number), result.anchor
    assert committed.rstrip().splitlines()[-1] in page, "its notes"


def test_a_page_says_whether_records_are_kept() -> None:
    assert "**90 runs** are committed" in _page("table_4")
    without = next(name for name in committed_tables() if not read_table(name).archive.runs)
    assert "Records not kept" in _page(without)


def test_a_sparse_table_shows_what_has_run_alone() -> None:
    table, shown, page = read_table("table_6_long"), _Numbers(), _page("table_6_long")
    shown.feed(page.split("</table>")[0])
    run = [result.anchor for result in table.results if result.mean is not None]
    assert table.spec.file.sparse and len(run) < len(table.results)
    assert [anchor for anchor in shown.rows if anchor] == run
    assert "and the table is what they give" in page


def test_a_page_without_records_promises_no_curves() -> None:
    unrecorded = [name for name in committed_tables() if not read_table(name).archive.runs]
    assert unrecorded
    for name in unrecorded:
        page = _page(name)
        assert "opens the command that makes its runs" in page and "learning curves" not in page


def test_numbers_stand_beside_the_papers_as_in_the_committed_table() -> None:
    shown = _Numbers()
    shown.feed(_page("table_4"))
    assert shown.rows["cora-dfa-auc"][:2] == ["cora/dfa", "AUC"]
    (line,) = re.findall(r"^\| cora/dfa .*", (TABLES / "table_4.md").read_text(encoding="utf-8"), re.MULTILINE)
    paper, ours, difference, verdict = [part.strip() for part in line.split("|")[2:6]]
    assert shown.rows["cora-dfa-auc"][2:6] == [paper, ours, difference, verdict]


def test_the_picture_of_rules_has_every_share_of_the_table() -> None:
    table = read_table("table_6")
    script = rules_script(table, REPOSITORY / "results" / "bench" / "rules.json")
    points = json.loads(script.removeprefix("window.rulesData = ").rstrip().removesuffix(";"))["points"]
    shares = {(r.row, r.column): r.mean for r in table.results if r.metric == "closed" and r.mean is not None}
    assert {(point["rule"], point["column"]): point["mean"] for point in points} == shares
    costs = {(point["rule"], point["column"]): point["cost"] for point in points}
    assert costs["bp", "gcn"] == 1.0 and costs["fdfa", "macro"] > 1.2 and costs["dfa", "deepfm"] is None


def test_the_reference_has_every_name_that_the_library_exports() -> None:
    tree = ast.parse((REPOSITORY / "dfa" / "__init__.py").read_text(encoding="utf-8"))
    exported = next(
        ast.literal_eval(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    )
    pages = "".join(api_pages(REPOSITORY / "dfa").values())
    assert sorted(re.findall(r"^::: dfa\.(\w+)$", pages, re.MULTILINE)) == sorted(exported)
    assert public_names(REPOSITORY / "dfa")["Shallow"] == "dfa.rules"


def _pages(entry: object) -> Iterator[str]:
    if isinstance(entry, str):
        yield entry
    elif isinstance(entry, dict):
        for value in entry.values():
            yield from _pages(value)
    elif isinstance(entry, list):
        for value in entry:
            yield from _pages(value)


def test_every_document_has_a_place_among_the_pages(tmp_path: Path) -> None:
    for document in documents(REPOSITORY):
        (tmp_path / document).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / document).touch()
    (tmp_path / "docs" / "something_new.md").touch()
    placed = set(_pages(navigation(tmp_path, {name: name for name in committed_tables()})))
    wanted = {str(path) for path in documents(REPOSITORY) if path.parts[:1] != ("results",)}
    wanted |= {f"results/tables/{name}.md" for name in committed_tables()} | {"docs/something_new.md"}
    assert wanted <= placed
