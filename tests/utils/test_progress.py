"""The bar over what takes long: on a terminal, after two seconds, with the time that is left."""

import io
import sys
from contextlib import suppress

import pytest

from benchmarks.utils import progress
from benchmarks.utils.progress import with_bar
from tests.helpers.terminal import Terminal


def _shown(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, seconds_an_item: float) -> str:
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("COLUMNS", "100")

    def look(item: int) -> int:
        clock[0] += seconds_an_item
        return 10 // (6 - item)

    with suppress(ZeroDivisionError):
        assert with_bar(look, range(6), "composing") == [1, 2, 2, 3, 5, 10]
        with_bar(look, range(7), "composing")
    return stream.getvalue()


def test_a_bar_shows_what_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = _shown(monkeypatch, Terminal(), seconds_an_item=10.0)
    assert "composing" in shown and "100%" in shown


def test_what_is_quick_and_what_has_no_terminal_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _shown(monkeypatch, Terminal(), seconds_an_item=0.2) == ""
    assert _shown(monkeypatch, io.StringIO(), seconds_an_item=10.0) == ""


def test_an_error_ends_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):  # a bar that was still there would forbid another
        assert "86%" in _shown(monkeypatch, Terminal(), seconds_an_item=10.0)


def test_a_bar_over_what_has_no_known_size_shows_its_title(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(progress, "_PATIENCE_SECONDS", -1.0)
    with progress.bar("reading", None) as advance:
        advance(1000)
    assert "reading" in stream.getvalue() and "left" not in stream.getvalue()
