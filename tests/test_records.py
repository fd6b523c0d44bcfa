"""Run folders: history, checkpoints, full and unwritable disks, unreadable files."""

import errno
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.errors import ResultsError
from benchmarks.execute import execute
from benchmarks.records import RunFolder, read_record
from tests.conftest import Toys


@contextmanager
def _largest_file(size: int) -> Iterator[None]:
    """Writing more than `size` bytes to a file fails, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_the_folder_follows_from_the_run_and_not_from_the_clock(toys: Toys) -> None:
    one, same, other = (RunFolder.of(toys.config(*overrides)) for overrides in ([], ["run.retry=true"], ["seed=4"]))
    assert one == same != other
    assert other.path.parent == toys.results / "runs" / "toy" / "toy_mlp" / "bp"
    assert other.path.name.startswith("seed4-")


def test_history_is_kept_up_to_the_checkpoint(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.history() == []
    for step in range(4):
        folder.append_metrics({"step": step, "loss": 0.1})
    with folder.metrics.open("a") as history:
        history.write('{"step": 4, "lo')
    folder.truncate_history(3)
    assert [row["step"] for row in folder.history()] == [0, 1, 2]


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert folder.load_checkpoint() is None
    folder.save_checkpoint({"weights": {"a": torch.arange(3.0)}, "position": {"best": None, "step": 3}})
    state = folder.load_checkpoint()
    assert state is not None and state["position"] == {"best": None, "step": 3}
    assert torch.equal(state["weights"]["a"], torch.arange(3.0))


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"\x80\x04\x95"])
def test_an_unreadable_checkpoint_is_an_error_that_says_what_to_do(tmp_path: Path, content: bytes) -> None:
    folder = RunFolder(tmp_path)
    folder.checkpoint.write_bytes(content)
    with pytest.raises(ResultsError, match=r"unreadable checkpoint .* delete it to start over"):
        folder.load_checkpoint()


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"metrics": {}}', "\x00"])
def test_an_unreadable_record_is_an_error_that_says_what_to_do(tmp_path: Path, content: str) -> None:
    (tmp_path / "result.json").write_text(content)
    with pytest.raises(ResultsError, match=r"unreadable record .* delete it to run again"):
        read_record(tmp_path / "result.json")


def test_no_record_is_none(tmp_path: Path) -> None:
    assert read_record(tmp_path / "nowhere" / "result.json") is None


def test_not_a_number_survives_the_record(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.finish({"status": "done", "metrics": {"a": float("nan"), "b": float("inf")}})
    record: Any = folder.read()
    assert record["metrics"]["a"] != record["metrics"]["a"] and record["metrics"]["b"] == float("inf")


def test_a_full_disk_at_the_checkpoint_or_the_weights_leaves_the_old_file(tmp_path: Path) -> None:
    folder, model = RunFolder(tmp_path), nn.Linear(200, 200)
    folder.save_checkpoint({"step": 1})
    folder.save_weights("best", nn.Linear(2, 2))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with _largest_file(20_000):
        with pytest.raises(ResultsError, match=r"cannot write to the results folder .* is the disk full\?"):
            folder.save_checkpoint(model.state_dict())
        with pytest.raises(ResultsError, match="cannot write to the results folder"):
            folder.save_weights("best", model)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_full_disk_in_the_middle_of_a_run_stops_it_and_the_run_goes_on_from_its_checkpoint(
    toys: Toys, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = toys.elsewhere("whole").run()
    config = toys.config("run.checkpoint_seconds=0")
    folder = RunFolder.of(config)
    append = RunFolder.append_metrics

    def full(self: RunFolder, row: dict[str, Any]) -> None:
        if row["epoch"] < 3:
            append(self, row)
        else:
            with self._writing():
                raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(RunFolder, "append_metrics", full)
    with pytest.raises(ResultsError, match="No space left on device"):
        execute(config)
    assert not folder.result.exists() and folder.checkpoint.exists()
    assert not list(folder.path.glob("*.tmp")) + list(folder.path.glob(".*.tmp"))
    monkeypatch.undo()
    assert execute(config)["metrics"] == whole["metrics"]


def test_a_full_disk_at_the_record_leaves_none(toys: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("benchmarks.environment.versions", lambda: {})
        patch.setattr("benchmarks.execute.versions", lambda: {"padding": "x" * 30_000})
        with _largest_file(20_000), pytest.raises(ResultsError, match="File too large"):
            toys.run()
    assert "result.json" not in " ".join(toys.files())
    assert not [name for name in toys.files() if name.endswith(".tmp")]
    assert toys.run()[0]["status"] == "done"


@pytest.mark.parametrize("where", ["results", "results/runs", "results/runs/toy/toy_mlp"])
def test_a_file_in_the_place_of_the_folder(toys: Toys, where: str) -> None:
    place = toys.results.parent / where
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("in the way")
    with pytest.raises(ResultsError, match="cannot write to the results folder"):
        toys.run()
    assert place.read_text() == "in the way"


def test_a_read_only_folder(toys: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(toys.results))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(ResultsError, match=r"cannot write to the results folder '.*': Permission denied"):
        toys.run()
    assert not toys.results.exists()
