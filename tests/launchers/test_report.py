"""Names of runs in the lines of a sweep."""

from types import SimpleNamespace

import pytest

from benchmarks.config import Config, compose_config, resolve
from benchmarks.launchers import report as reporting
from benchmarks.launchers.report import Report, describe
from benchmarks.run.names import run_names


def composed(*overrides: str) -> Config:
    return resolve(compose_config(["task=cora", "rule=dfa", "scale=smoke", "task.source=stand_in", *overrides]))


def test_runs_are_named_by_what_distinguishes_them_from_others_of_their_kind() -> None:
    configs = [
        composed("model=gcn", "seed=0", "optimizer.lr=0.01"),
        composed("model=gcn", "seed=1", "optimizer.lr=0.02", "run.device=cpu"),
        composed("model=cheb", "seed=0"),
        composed("model=cheb", "seed=1"),
    ]
    assert list(run_names(configs).values()) == [
        "cora gcn dfa seed 0, optimizer.lr=0.01",
        "cora gcn dfa seed 1, optimizer.lr=0.02",
        "cora cheb dfa seed 0",
        "cora cheb dfa seed 1",
    ]


def test_settings_that_only_the_others_have_are_left_out() -> None:
    configs = [
        composed("model=gcn", "trainer.patience=null", "schedule=constant"),
        composed("model=gcn", "trainer.patience=5", "schedule=noam"),
    ]
    first, second = run_names(configs).values()
    assert first == "cora gcn dfa seed 0, schedule.name=constant"
    assert "schedule.name=noam" in second and "trainer.patience=5" in second and "schedule.options." in second


def test_a_run_with_constant_predictions_is_not_just_done() -> None:
    record = {"task": "cora", "model": "gcn", "rule": "dfa", "seed": 0, "status": "done", "metrics": {}}
    assert describe(record) == "cora gcn dfa seed 0: done"
    record["metrics"] = {"test/constant_predictions": 1.0}
    assert describe(record) == "cora gcn dfa seed 0: done (its model predicts the same for every test example)"


def test_a_run_that_a_sweep_names_twice_counts_once_for_the_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    config = composed("model=gcn")
    report = Report([config, config])
    report._began -= 7200
    for _ in range(2):
        report.take(config, {"error": "no"})
    assert [", 0 s left]" in line for line in capsys.readouterr().out.splitlines()] == [True, True]


def test_runs_under_way_count_half_for_the_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    configs = [composed("model=gcn", f"seed={seed}") for seed in range(4)]
    clock = iter([0.0, 60.0, 60.0, 120.0, 120.0])
    monkeypatch.setattr(reporting, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    report = Report(configs, workers=2)
    for config in configs:
        report.take(config, {"error": "no"})
    lines = [line.partition("]")[0] for line in capsys.readouterr().out.splitlines()]
    assert lines == ["[1/4, 1 min 40 s left", "[2/4, 36 s left", "[3/4, 17 s left", "[4/4, 0 s left"]
