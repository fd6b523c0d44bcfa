"""Records that are damaged, or of another run: named, and trusted by no reader."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from benchmarks.run.execute import execute
from benchmarks.run.record_schema import fault_in, read_record
from benchmarks.run.records import RunFolder
from benchmarks.tables.archive import collect
from tests.conftest import Toys
from tests.helpers.records import USES, whole_record


def test_what_a_run_leaves_is_whole(toys: Toys) -> None:
    record, folder = toys.run("rule=dfa")
    assert fault_in(record) == "" and folder.read() == record


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"status": None}, "names no status"),
        ({"status": "finished"}, "unknown status, 'finished'"),
        ({"status": ["done"]}, "unknown status, a list"),
        ({"status": "failed"}, "no reason for 'failed'"),
        ({"status": "damaged", "reason": "x"}, "unknown status, 'damaged'"),
        ({"seed": "0"}, "'0' for 'seed', which must be a count"),
        ({"seed": True}, "True for 'seed'"),
        ({"steps": -1}, "-1 for 'steps'"),
        ({"seconds": float("inf")}, "inf for 'seconds', which must be a number, finite"),
        ({"seconds": 10**400}, "for 'seconds'"),
        ({"best_valid": None}, "no 'best_valid'"),
        ({"best_valid": float("nan")}, "nan for 'best_valid'"),
        ({"metrics": {"test/accuracy": "high"}}, "an object for 'metrics', which must be names with numbers"),
        ({"metrics": [1.0]}, "a list for 'metrics'"),
        ({"data": {}}, "for 'data'"),
        ({"data": {"name": "toy", "kind": "real", "checksums": {}, "notes": {"a": []}}}, "for 'data'"),
        ({"uses": {"state": "none"}}, "for 'uses'"),
        ({"uses": USES | {"waves": "two"}}, "for 'uses'"),
        ({"uses": USES | {"waves": -1}}, "for 'uses'"),
        ({"inputs": {"data": {}}}, "for 'inputs'"),
        ({"versions": {"torch": 2}}, "for 'versions'"),
        ({"device": "cpu\ncpu"}, "for 'device', which must be a line of text"),
    ],
)
def test_a_record_of_another_shape_is_told_by_its_fault(tmp_path: Path, change: dict[str, Any], fault: str) -> None:
    path = tmp_path / "result.json"
    path.write_text(json.dumps(whole_record() | change))
    record = read_record(path)
    assert record is not None and record["status"] == "damaged"
    assert fault in record["reason"] and str(path) in record["reason"] and "run.retry=true" in record["reason"]


def test_waves_may_be_missing_from_what_a_rule_uses() -> None:
    assert fault_in(whole_record(uses=USES)) == fault_in(whole_record(uses=USES | {"waves": 2})) == ""


def test_every_field_that_readers_rely_on_is_asked_for() -> None:
    for name in whole_record():
        without = {key: value for key, value in whole_record().items() if key != name}
        assert name in fault_in(without), name


_CONTENTS = {
    "empty": b"",
    "half": b'{"status": "do',
    "list": b"[1]",
    "zeros": b"\0" * 100,
    "latin": b'{"status": "\xe9"}',
    "deep": b'{"a":' * 50_000,
    "digits": b'{"seed": ' + b"9" * 5000 + b"}",
    "surrogate": json.dumps(whole_record(task="\ud800")).encode(),
}


@pytest.mark.parametrize("content", _CONTENTS.values(), ids=_CONTENTS)
def test_what_is_no_record_at_all_reads_as_damaged(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "result.json").write_bytes(content)
    record = read_record(tmp_path / "result.json")
    assert record is not None and record["status"] == "damaged" and "\n" not in record["reason"]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "circle"])
def test_what_is_no_file_is_not_waited_for_and_gives_way_to_a_retry(toys: Toys, kind: str) -> None:
    folder = RunFolder.of(toys.config())
    folder.path.mkdir(parents=True)
    if kind == "pipe":
        os.mkfifo(folder.result)
    elif kind == "folder":
        folder.result.mkdir()
    else:
        folder.result.symlink_to("/dev/zero" if kind == "device" else folder.result)
    assert execute(toys.config())["status"] == "damaged"
    assert toys.run("run.retry=true")[0]["status"] == "done"
    assert (folder.path / "result.damaged-1").is_symlink() or (folder.path / "result.damaged-1").exists()


def test_the_record_of_another_run_is_refused(toys: Toys) -> None:
    _, other = toys.run("seed=1")
    folder = RunFolder.of(toys.config("seed=0"))
    folder.path.mkdir(parents=True)
    folder.result.write_bytes(other.result.read_bytes())
    record = execute(toys.config("seed=0"))
    assert record["status"] == "damaged" and "is of another run (seed 1, identity" in record["reason"]
    assert (record["task"], record["model"], record["rule"], record["seed"]) == ("toy", "toy_mlp", "bp", 0)


def test_a_damaged_record_is_not_committed(toys: Toys) -> None:
    _, folder = toys.run()
    folder.result.write_text("{")
    found = collect("toys", {}, [toys.config()])
    assert found.archive.runs == {} and "is left out: its record" in found.left_out[0]
