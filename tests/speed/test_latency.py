"""How soon commands answer, timed on programs that take a known time."""

from pathlib import Path

import pytest

from benchmarks.errors import ConfigError, SuiteError
from benchmarks.speed import latency
from benchmarks.speed.latency import COMMANDS, Command, bench_latency
from benchmarks.speed.report import latency_text

_PROGRAM = """
import os, pathlib, sys, time
cache = pathlib.Path(os.environ["DFA_CACHE_DIR"])
time.sleep({seconds} if cache.exists() else 4 * {seconds})
cache.mkdir(exist_ok=True)
assert sys.argv[1:] == ["status", "all"] and not list(pathlib.Path(os.environ["DFA_RESULTS_DIR"]).iterdir())
assert os.environ["OMP_NUM_THREADS"] == "2"
"""


def _checkout(folder: Path, program: str) -> Path:
    (folder / "benchmarks").mkdir(parents=True)
    (folder / "benchmarks" / "__init__.py").touch()
    (folder / "benchmarks" / "__main__.py").write_text(program)
    return folder


def test_two_checkouts_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "REPOSITORY", _checkout(tmp_path / "now", _PROGRAM.format(seconds=0.1)))
    monkeypatch.setattr(latency, "COMMANDS", [Command("status all", goal=8)])
    before = _checkout(tmp_path / "before", _PROGRAM.format(seconds=0.5))
    (row,) = bench_latency(rounds=3, threads=2, before=before)
    assert (row["command"], row["goal_seconds"], row["rounds"]) == ("status all", 8, 3)
    for part, seconds in (("", 0.1), ("before_", 0.5)):
        assert seconds < row[f"{part}fastest_seconds"] <= row[f"{part}median_seconds"]
        assert row[f"{part}cpu_seconds"] < row[f"{part}median_seconds"], "sleeping takes no processor"
    assert row["first_seconds"] > 4 * 0.1 and "before_first_seconds" not in row
    assert row["fastest_seconds"] < 0.5 < row["before_fastest_seconds"]
    facts = {"hardware": "abacus", "threads": 2, "torch": "2", "commit": "c"}
    page = latency_text([{**row, **facts}])
    assert "| `status all` | < 8 |" in " ".join(page.split()) and "before: median" in page
    assert "the checkout that --before named" in page
    assert "before" not in latency_text([{**{k: v for k, v in row.items() if "before" not in k}, **facts}])


def test_a_command_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "REPOSITORY", _checkout(tmp_path, "import sys\nsys.exit('error: no luck')"))
    with pytest.raises(SuiteError, match=r"python -m benchmarks --help of '.*' fails: error: no luck"):
        bench_latency(rounds=1, threads=1)
    with pytest.raises(ConfigError, match="is no checkout"):
        bench_latency(rounds=1, threads=1, before=tmp_path / "nowhere")


def test_a_training_is_timed_to_its_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    line = "train task=click_log model=fm rule=bp trainer.steps={} trainer.epochs=100000000"
    monkeypatch.setattr(latency, "COMMANDS", [Command(line.format(10**9), goal=4, first_step=True)])
    (row,) = bench_latency(rounds=1, threads=1)  # it would never end
    assert row["median_seconds"] > 0
    assert {command.goal for command in COMMANDS if command.first_step} == {4}
