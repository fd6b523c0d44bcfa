"""An interrupted run with something hostile among its files: it ends in the same numbers, or one line says why not."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.commands import train
from benchmarks.run.records import RunFolder
from tests.conftest import Command, Toys
from tests.run.test_execute import _leave_at

_LONG = ["rule=dfa", "trainer.epochs=3", "run.checkpoint_seconds=0"]


def _place(make: Callable[[Path], object]) -> Callable[[Path], object]:
    def damage(path: Path) -> None:
        path.unlink(missing_ok=True)
        make(path)

    return damage


KINDS: dict[str, Callable[[Path], object]] = {
    "missing": _place(lambda path: None),
    "empty": _place(Path.touch),
    "garbage": _place(lambda path: path.write_bytes(b"\xff\x00garbage\n" * 50)),
    "zeros": _place(lambda path: path.write_bytes(bytes(5000))),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-7]),
    "folder": _place(Path.mkdir),
    "pipe": _place(os.mkfifo),
    "endless link": _place(lambda path: path.symlink_to("/dev/zero")),
}
FILES = ("metrics.jsonl", "checkpoint.pt", "checkpoint.previous.pt", "config.yaml", "best.safetensors", ".lock")
REFUSED = {*((file, "folder") for file in FILES), (".lock", "endless link")}
"""A folder in the place of a file is for the user to remove; a lock is no link."""


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, float]]:
    """An interrupted run, and the metrics it has to end in."""
    place = tmp_path_factory.mktemp("begun")
    toys = Toys(place / "results")
    with pytest.MonkeyPatch.context() as monkeypatch:
        _leave_at(monkeypatch, toys.config(*_LONG), 12)
    return toys.results, Toys(place / "whole").run(*_LONG)[0]["metrics"]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("file", FILES)
def test_a_run_goes_on_or_says_why_not(
    toys: Toys, command: Command, begun: tuple[Path, dict[str, float]], file: str, kind: str
) -> None:
    shutil.copytree(begun[0], toys.results)
    folder = RunFolder.of(toys.config(*_LONG))
    if file == "best.safetensors":
        (folder.path / file).touch()
    KINDS[kind](folder.path / file)
    code, out, err = command(train.main, *toys.overrides, *_LONG)
    assert "Traceback" not in out + err and err.count("\n") <= (2 if kind == "folder" else 1)
    if (file, kind) in REFUSED:
        assert code == 2 and str(folder.path) in err
        return
    record = folder.read()
    assert code == 0 and record is not None and record["metrics"] == begun[1]
    assert [row["step"] for row in folder.history()] == [5, 10, 15]
    assert not list(folder.path.glob(".*.tmp")) and not list(folder.path.glob("checkpoint*"))
