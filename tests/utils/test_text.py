"""The first difference of two texts, as it is shown."""

import pytest

from benchmarks.utils.text import first_difference


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
