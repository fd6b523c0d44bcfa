"""Texts for people: the first difference of two, CSV, and the code that something was made with."""

import pytest

from benchmarks.utils.text import code_title, csv_text, fetch_or, first_difference, unknown_name


@pytest.mark.parametrize(
    ("before", "after", "shown"),
    [
        ("a\nb 1\nc", "a\nb 2\nd", ("b 1", "b 2")),
        ("a", "a\nb", ("", "b")),
        (f"{'x' * 50}1{'y' * 90}", f"{'x' * 50}2", (f"…{'x' * 30}1{'y' * 59}…", f"…{'x' * 30}2")),
        ("a", "a", ("", "")),
    ],
)
def test_the_first_line_that_differs_is_shown_around_the_place(before: str, after: str, shown: tuple[str, str]) -> None:
    assert first_difference(before, after) == shown


def test_csv_quotes_what_it_must_and_nothing_else() -> None:
    assert csv_text(["a", "b"], [[1, "x, y"], ["", None]]) == 'a,b\n1,"x, y"\n,\n'


def test_code_is_named_by_its_commit_and_what_was_changed_since() -> None:
    assert [code_title("abc", changed) for changed in (False, True)] == ["abc", "abc with uncommitted changes"]


def test_missing_data_are_fetched_before_a_run_or_in_it() -> None:
    assert fetch_or("cora", "place them there") == "run `python -m benchmarks fetch cora` or place them there"
    assert fetch_or("cora", "wait", in_a_run=True).endswith("fetch cora` (or set run.download=true), or wait")


def test_the_nearest_of_the_known_names_comes_first() -> None:
    known = ["table_1", "table_3", "table_a3"]
    assert unknown_name("table", "tabel_3", known) == (
        "unknown table 'tabel_3'; did you mean 'table_3'? known: table_1, table_3, table_a3"
    )
    assert unknown_name("table", "table_9", known) == "unknown table 'table_9'; known: table_1, table_3, table_a3"
    assert unknown_name("table", "chair", []) == "unknown table 'chair'; known: none"
