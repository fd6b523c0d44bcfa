"""Run folders: history, checkpoints, full and unwritable disks, unreadable files."""

import errno
import resource
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.errors import ResultsError
from benchmarks.run.execute import execute
from benchmarks.run.record_schema import read_record
from benchmarks.run.records import RunFolder
from tests.conftest import Toys
from tests.helpers.records import whole_record


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
    kept = [{"step": step, "loss": 0.1} for step in range(3)]
    assert folder.rewrite_history(kept) and folder.history() == kept


def test_a_curve_is_whole_or_an_error(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with pytest.raises(ResultsError, match="is missing or empty"):
        folder.curve("valid/loss")
    for step in (5, 10):
        folder.append_metrics({"step": step, "valid/loss": 1 / step})
    folder.finish(whole_record(steps=10))
    assert folder.curve("valid/loss") == {5: 0.2, 10: 0.1}
    folder.rewrite_history(folder.history()[:1])
    with pytest.raises(ResultsError, match="ends at step 5 of 10"):
        folder.curve("valid/loss")
    folder.finish(whole_record(status="diverged", reason="so it is", steps=10))
    assert folder.curve("valid/loss") == {5: 0.2}
    with folder.metrics.open("a") as history:
        history.write('{"step": 10, "va')
    with pytest.raises(ResultsError, match="line 2 is not that of an evaluation"):
        folder.curve("valid/loss")


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


def test_no_record_is_none(tmp_path: Path) -> None:
    assert read_record(tmp_path / "nowhere" / "result.json") is None


def test_not_a_number_survives_the_record(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.finish(whole_record(metrics={"a": float("nan"), "b": float("inf")}))
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
        patch.setattr("benchmarks.run.describe.versions", lambda: {"padding": "x" * 30_000})
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


def _damage(path: Path, where: int) -> None:
    content = bytearray(path.read_bytes())
    content[where] ^= 0x10
    path.write_bytes(content)


def test_a_damaged_number_in_a_checkpoint_is_noticed_and_the_one_before_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, numbers = RunFolder(tmp_path), torch.arange(1000.0)
    folder.save_checkpoint({"step": 1, "weights": numbers})
    assert not folder.previous_checkpoint.exists()
    folder.save_checkpoint({"step": 2, "weights": -numbers})
    # One bit of one weight: torch.load alone takes it for a good file.
    where = folder.checkpoint.read_bytes().index((-numbers).numpy().tobytes()) + 2000
    _damage(folder.checkpoint, where)
    assert torch.load(folder.checkpoint, weights_only=True)["step"] == 2
    state = folder.load_checkpoint()
    assert state is not None and state["step"] == 1 and torch.equal(state["weights"], numbers)
    assert capsys.readouterr().err == (
        f"warning: unreadable checkpoint '{folder.checkpoint}'; going on from the one before it\n"
    )
    # The damaged one is gone, and does not become the previous one.
    folder.save_checkpoint({"step": 3, "weights": numbers})
    _damage(folder.checkpoint, 100)
    folder.checkpoint.write_bytes(b"")
    state = folder.load_checkpoint()
    assert state is not None and state["step"] == 1


def test_without_a_readable_checkpoint_one_line_names_what_to_delete(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.save_checkpoint({"step": 1})
    folder.save_checkpoint({"step": 2})
    for path in (folder.checkpoint, folder.previous_checkpoint):
        path.write_bytes(path.read_bytes()[:-30])
    expected = f"unreadable checkpoint '{folder.checkpoint}' and unreadable checkpoint '{folder.previous_checkpoint}'"
    expected += "; delete them to start over"
    with pytest.raises(ResultsError) as error:
        folder.load_checkpoint()
    assert str(error.value) == expected


def test_killed_between_two_renames_the_previous_checkpoint_serves_silently(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = RunFolder(tmp_path)
    folder.save_checkpoint({"step": 1})
    folder.checkpoint.replace(folder.previous_checkpoint)
    state = folder.load_checkpoint()
    assert state is not None and state["step"] == 1 and folder.has_checkpoint
    assert capsys.readouterr().err == ""


def test_a_finished_run_leaves_no_checkpoints_and_no_half_written_files(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.save_checkpoint({"step": 1})
    folder.save_checkpoint({"step": 2})
    (tmp_path / ".checkpoint.pt.abc.tmp").write_bytes(b"half")
    folder.finish(whole_record())
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_whether_a_run_is_held_is_seen_without_a_trace(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    assert not folder.is_held() and not folder.path.exists()
    with folder.locked():
        assert folder.is_held()
    assert not folder.is_held()


def test_looking_at_a_run_keeps_nobody_from_it(tmp_path: Path) -> None:
    folder, over = RunFolder(tmp_path), threading.Event()

    def look() -> None:
        while not over.is_set():
            folder.is_held()

    with folder.locked():
        pass
    with ThreadPoolExecutor(1) as pool:
        looking = pool.submit(look)
        try:
            for _ in range(200):
                with folder.locked(wait=False):
                    pass
        finally:
            over.set()
    looking.result()


@pytest.mark.parametrize("fault", ["memory", "cpu allocator"])
def test_memory_that_runs_out_is_recorded_wherever_it_happens(
    toys: Toys, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    def too_large(*arguments: Any, **options: Any) -> None:
        if fault == "memory":
            raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 1 TiB.")
        torch.empty(2**60)  # what PyTorch's own allocator says

    for place, seed in (("build_task", 0), ("build_rule", 1), ("evaluate", 2)):
        with monkeypatch.context() as patch:
            patch.setattr(f"benchmarks.run.execute.{place}", too_large)
            record, folder = toys.run(f"seed={seed}")
        assert record["status"] == "failed" and record["reason"].startswith("out of memory: "), record["reason"]
        assert "\n" not in record["reason"] and folder.read() == record
        assert toys.run(f"seed={seed}", "run.retry=true")[0]["status"] == "done"


def test_a_run_that_turns_out_impossible_leaves_the_damaged_record_of_an_earlier_one(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "results" / "runs" / "task" / "model" / "rule" / "seed0")
    folder.path.mkdir(parents=True)
    (folder.path / "result.damaged-1").write_text("half")
    (folder.path / "config.yaml").write_text("of the attempt")
    folder.abandon()
    assert [file.name for file in folder.path.iterdir()] == ["result.damaged-1"]
