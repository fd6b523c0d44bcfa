"""Records and histories of any content: read as what they are, or refused; never an error of another kind."""

import json
import math
import tempfile
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("hypothesis")
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from benchmarks.errors import ResultsError
from benchmarks.launchers.report import describe
from benchmarks.run.history import curve, is_row, read_history, to_text
from benchmarks.run.record_schema import fault_in, read_record
from benchmarks.run.records import RunFolder
from benchmarks.tables.archive import thinned
from tests.helpers.records import whole_record

_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=8,
)
_NUMBERS = st.floats() | st.integers(-(2**53), 2**53)
_ROWS = st.lists(
    st.fixed_dictionaries({"step": st.integers(0, 2**31), "epoch": st.integers(0, 99), "valid/loss": _NUMBERS}),
    max_size=9,
)
_WHOLE = json.dumps(whole_record()).encode()
_often = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def _read(content: bytes) -> dict[str, Any] | None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "result.json")
        path.write_bytes(content)
        return read_record(path)


def _assert_usable(record: dict[str, Any]) -> None:
    """What readers do with a record of any status."""
    assert "\n" not in describe(record) and describe(record).encode()
    assert math.isfinite(float(record["seconds"])) and record["data"]["kind"].encode()
    assert all(isinstance(float(value), float) for value in record["metrics"].values())
    assert record["status"] != "done" or not math.isnan(float(record["best_valid"]))
    assert record["status"] == "done" or record["reason"]


@_often
@given(st.sampled_from(sorted(whole_record())), _ANYTHING)
def test_a_record_with_any_value_in_a_field_is_whole_or_damaged(name: str, value: Any) -> None:
    content = whole_record(**{name: value})
    record = _read(json.dumps(content).encode())
    assert record is not None
    _assert_usable(record)
    assert (record["status"] == "damaged") == bool(fault_in(json.loads(json.dumps(content)))) or "surrogate" in str(
        record
    )


@_often
@given(_ANYTHING)
def test_any_json_reads_as_a_record_that_can_be_shown(content: Any) -> None:
    record = _read(json.dumps(content).encode())
    assert record is not None and record["status"] == "damaged"
    _assert_usable(record)


@_often
@given(st.binary(max_size=200) | st.integers(0, len(_WHOLE) - 1).map(lambda cut: _WHOLE[:cut]))
def test_any_bytes_read_as_a_record_that_can_be_shown(content: bytes) -> None:
    record = _read(content)
    assert record is not None and record["status"] == "damaged"
    _assert_usable(record)


@_often
@given(_ROWS)
def test_a_history_comes_back_as_it_was_written(rows: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(Path(folder))
        run.rewrite_history(rows)
        assert repr(run.history()) == repr(rows)  # by their text, since nan is not itself
        assert all(map(is_row, thinned(run.history(), whole_record())))


@_often
@example([{"step": 1, "valid/loss": 0.5}], b"\r", 0.99)  # before the end of a line, where reading text drops it
@given(_ROWS, st.binary(max_size=60), st.floats(0, 1))
def test_a_damaged_history_is_read_as_rows_or_refused(rows: list[dict[str, Any]], garbage: bytes, where: float) -> None:
    text = to_text(rows).encode()
    place = int(where * len(text))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "metrics.jsonl")
        path.write_bytes(text[:place] + garbage + text[place + len(garbage) // 2 :])
        try:
            assert all(map(is_row, read_history(path)))
            assert all(isinstance(value, float) for value in curve(path, "valid/loss", 0).values())
        except ResultsError as error:
            assert "\n" not in str(error)
        run = RunFolder(Path(folder))
        begins_well = path.read_bytes().startswith(text)
        assert begins_well or not run.rewrite_history(rows)
        run.rewrite_history(rows)
        assert path.read_bytes() == text
