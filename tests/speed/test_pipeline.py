"""The part `pipeline`: its rows and files, at sizes that take no time; times are not judged."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.commands.bench import main
from benchmarks.errors import ResultsError
from benchmarks.speed.pipeline.processes import time_in_stages
from benchmarks.speed.pipeline.report import ratio
from benchmarks.speed.pipeline.stages import Setting
from benchmarks.speed.workloads import build_workload, load_settings
from tests.conftest import Command

SMALL: dict[str, Any] = {
    "measured": [
        {
            "name": "mlp",
            "size": "tiny",
            "network": "perceptron",
            "options": {"inputs": 3, "widths": [4, 4], "outputs": 2, "rows": 4},
        }
    ],
    "microbatches": [1, 2],
    "sleeping": {"forward": 1e-4, "backward": 2e-4, "pairs": [[3, 2]]},
    "predicted": {"stages": [2, 4], "microbatches_per_stage": [0.5, 1]},
}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"pipeline": SMALL, "steps": load_settings("steps")}
    for module in ("suite", "report"):
        monkeypatch.setattr(f"benchmarks.speed.pipeline.{module}.load_settings", settings.__getitem__)


def test_rows_table_and_figure(small: None, tmp_path: Path, command: Command) -> None:
    code, out, err = command(main, "--parts", "pipeline", "--results", str(tmp_path))
    assert (code, err) == (0, "")
    rows = json.loads((tmp_path / "bench" / "pipeline.json").read_text())
    found = [
        (row["model"], row["stages"], row["microbatches"], row["baseline"])
        for row in rows
        if row["execution"] == "stages"
    ]
    assert found == [
        ("mlp", 2, 1, "one_process"),
        ("mlp", 2, 2, "one_process"),
        ("mlp", 2, 1, "ScheduleGPipe"),
        ("mlp", 2, 2, "ScheduleGPipe"),
        ("mlp", 2, 2, "Schedule1F1B"),
        ("sleeping", 3, 2, "one_process"),
        ("sleeping", 3, 2, "ScheduleGPipe"),
    ]
    others = [(row["model"], row["stages"], row["execution"]) for row in rows if row["execution"] != "stages"]
    assert others == [("mlp", 1, execution) for execution in ("one_process", "recompute", "recompute_parallel")]
    for row in rows:
        assert (row["rule"], row["threads"], row["device"]) == ("dfa", 1, "cpu")
        assert row["ratio"] > 0 and row["ratio_to_one_process"] > 0
        assert (row["predicted"] is None) == (row["baseline"] == "one_process")
    assert "Prediction, not measured" in (tmp_path / "bench" / "pipeline.md").read_text()
    assert (tmp_path / "bench" / "pipeline.png").stat().st_size > 10_000
    assert "| BP, 1F1B" in out


def test_an_unknown_network(tmp_path: Path, command: Command) -> None:
    code, _, err = command(main, "--parts", "pipeline", "--models", "vgg", "--results", str(tmp_path))
    assert code == 2 and err.count("\n") == 1
    assert err.startswith("error: unknown model of the bench of pipelines 'vgg'; known: mlp, transformer, sleeping")


def test_a_process_that_fails_is_told_in_one_line() -> None:
    entry = {"name": "broken", "network": "perceptron", "options": {}}
    with pytest.raises(
        ResultsError, match=r"^pipeline: a process of broken has failed: [^\n]*missing a required argument: 'inputs'$"
    ):
        time_in_stages(Setting(entry, 2, [1], "dfa", 1, 1))


def test_every_network_is_cut_in_halves() -> None:
    for entry in load_settings("pipeline")["measured"]:
        workload, at = Setting(entry, 2, [1], "dfa", 1, 1).build()
        assert at == ["4"] and len(workload.placement["points"]) == 8


def test_sleepers_take_the_time_of_their_rows() -> None:
    options = {"layers": 2, "forward": 0.02, "backward": 0.03, "rows": 2}
    workload = build_workload({"network": "sleepers", "options": options}, torch.device("cpu"))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        workload.loss(workload.model).backward()
    seconds = sum(event.cpu_time_total for event in profiler.key_averages() if event.key.startswith("_Sleep")) / 1e6
    assert seconds >= 2 * (0.02 + 0.03)


def test_predictions_for_many_stages() -> None:
    """(S - 1) f + M (f + b) against (M + S - 1) (f + b), with b = 2 f."""
    for stages, count in [(8, 1), (32, 32), (128, 512)]:
        expected = (stages - 1 + 3 * count) / (3 * (count + stages - 1))
        assert ratio("feedback", stages, count) == pytest.approx(expected)
