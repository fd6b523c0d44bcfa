"""The copy for Weights & Biases, read back from its offline file; and that nothing about it can harm a run."""

import json
import struct
import time
import warnings
from pathlib import Path
from typing import Any

import pytest

from benchmarks.config import identity
from benchmarks.execute import execute
from benchmarks.wandb_copy import PROJECT
from tests.conftest import Toys

wandb = pytest.importorskip("wandb")

_BLOCK, _WHOLE, _LAST = 32768, 1, 4


def _read_offline(file: Path) -> list[Any]:
    """The records of an offline run: seven bytes of header, then a LevelDB log of protocol buffers in 32 KiB blocks."""
    from wandb.proto import wandb_internal_pb2

    content, position, part, records = file.read_bytes(), 7, b"", []
    while position + 7 <= len(content):
        if (rest := _BLOCK - position % _BLOCK) < 7:  # too short for another header
            position += rest
            continue
        _, length, kind = struct.unpack_from("<IHB", content, position)
        position += 7 + length
        part += content[position - length : position]
        if kind in (_WHOLE, _LAST):
            records.append(wandb_internal_pb2.Record.FromString(part))
            part = b""
    return records


def _items(updates: Any) -> dict[str, Any]:
    """`a.b: 1` where a key is nested, and whole dictionaries taken apart alike."""
    found: dict[str, Any] = {}
    for item in updates:
        _flatten("/".join(item.nested_key) or item.key, json.loads(item.value_json), found)
    return found


def _flatten(prefix: str, value: Any, into: dict[str, Any]) -> None:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            _flatten(f"{prefix}/{key}", inner, into)
    else:
        into[prefix] = value


def test_the_offline_copy_is_complete(toys: Toys) -> None:
    config = toys.config("run.wandb=offline", "rule=dfa", "seed=2", "run.wandb_group=table_3")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        record = execute(config)
    files = list((toys.results / "wandb").glob("offline-run-*/*.wandb"))
    assert len(files) == 1
    for _ in range(100):  # the service writes the file in its own time
        records = _read_offline(files[0])
        if records and records[-1].WhichOneof("record_type") == "exit":
            break
        time.sleep(0.1)

    runs = [entry.run for entry in records if entry.WhichOneof("record_type") == "run"]
    assert (runs[0].project, runs[0].run_group, runs[0].display_name) == (PROJECT, "table_3", "toy/toy_mlp/dfa/seed2")
    assert list(runs[0].tags) == ["toy", "toy_mlp", "dfa", "paper"]
    settings = _items(runs[0].config.update)
    assert settings["identity"] == identity(config)
    assert settings["optimizer/lr"] == 0.001 and settings["task/options/batch_size"] == 12
    assert settings["model/points"] == ["blocks.*.act"] and settings["seed"] == 2

    from benchmarks.records import RunFolder

    rows = [_items(entry.history.item) for entry in records if entry.WhichOneof("record_type") == "history"]
    expected = RunFolder.of(config).history()
    assert len(rows) == len(expected) == 3
    for row, line in zip(rows, expected, strict=True):
        assert line.items() <= row.items()

    summary: dict[str, Any] = {}
    for entry in records:
        if entry.WhichOneof("record_type") == "summary":
            summary |= _items(entry.summary.update)
    flat: dict[str, Any] = {}
    for key, value in record.items():
        _flatten(key, value, flat)
    for key, value in flat.items():
        assert summary[key] == pytest.approx(value), key
    exits = [entry.exit.exit_code for entry in records if entry.WhichOneof("record_type") == "exit"]
    assert exits == [0]


def test_a_copy_that_cannot_be_begun_is_a_warning(toys: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**options: Any) -> None:
        raise RuntimeError("no service")

    monkeypatch.setattr(wandb, "init", fail)
    for mode in ("offline", "online"):
        with pytest.warns(UserWarning, match="copy of this run is incomplete: no service") as caught:
            record, _ = toys.run(f"run.wandb={mode}", f"seed={len(mode)}")
        assert record["status"] == "done"
        assert len([warning for warning in caught if "incomplete" in str(warning.message)]) == 1


class _Service:
    """Stands for W&B's run; remembers what it was told."""

    def __init__(self) -> None:
        self.begun: list[dict[str, Any]] = []
        self.rows: list[dict[str, Any]] = []
        self.summary: dict[str, Any] = {}
        self.exit_codes: list[int] = []

    def init(self, **options: Any) -> "_Service":
        self.begun.append(options)
        return self

    def log(self, row: dict[str, Any], step: int) -> None:
        self.rows.append(row)

    def finish(self, exit_code: int) -> None:
        self.exit_codes.append(exit_code)


def test_an_online_copy_is_logged_as_it_goes_and_taken_up_again(toys: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    service = _Service()
    monkeypatch.setattr(wandb, "init", service.init)
    options = ["run.wandb=online", "run.checkpoint_seconds=0"]
    monkeypatch.setenv("TOY_FAULT", "leave@8")
    with pytest.raises(BaseException):  # noqa: B017  (the toy's own)
        toys.run(*options)
    assert len(service.rows) == 1 and not service.exit_codes
    monkeypatch.delenv("TOY_FAULT")
    record, folder = toys.run(*options)
    assert service.rows == folder.history()
    assert [begun["resume"] for begun in service.begun] == ["allow", "allow"]
    assert len({begun["id"] for begun in service.begun}) == 1
    assert service.summary["metrics"] == record["metrics"] and service.exit_codes == [0]


def test_an_unsuccessful_run_ends_its_copy_so_and_an_impossible_one_leaves_none(
    toys: Toys, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = _Service()
    monkeypatch.setattr(wandb, "init", service.init)
    for mode in ("offline", "online"):
        monkeypatch.setenv("TOY_FAULT", "nan@1")
        toys.run(f"run.wandb={mode}", f"seed={len(mode)}")
        monkeypatch.delenv("TOY_FAULT")
        with pytest.raises(Exception, match="gradient"):
            toys.run(f"run.wandb={mode}", "+model.options.output=detached")
    assert (service.exit_codes, len(service.begun)) == ([1, 1], 2)


def test_disabled_writes_nothing(toys: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    service = _Service()
    monkeypatch.setattr(wandb, "init", service.init)
    toys.run("run.wandb=disabled")
    assert not service.begun and not (toys.results / "wandb").exists()
