"""Several processes: the same numbers, workers that die, runs that others hold."""

from pathlib import Path

import pytest

from benchmarks import workers
from benchmarks.config import Config
from benchmarks.records import RunFolder
from benchmarks.workers import Problem, default_jobs, run_all
from tests.conftest import Toys


def _metrics(configs: list[Config]) -> list[object]:
    return [(RunFolder.of(config).read() or {}).get("metrics") for config in configs]


def _configs(toys: Toys, *overrides: str) -> list[Config]:
    return [toys.config("rule=dfa", f"seed={seed}", "run.checkpoint_seconds=0", *overrides) for seed in range(3)]


def test_two_workers_one_of_which_dies_once_equal_one(
    toys: Toys, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    alone = _configs(toys.elsewhere("alone"))
    assert run_all(alone, 1) == []
    monkeypatch.setenv("TOY_FAULT", "exit@9")
    monkeypatch.setenv("TOY_FAULT_SEED", "1")
    monkeypatch.setenv("TOY_FAULT_ONCE", str(tmp_path / "died"))
    together = _configs(toys)
    capfd.readouterr()
    assert run_all(together, 2) == []
    assert (tmp_path / "died").exists()
    assert _metrics(together) == _metrics(alone) and None not in _metrics(alone)
    lines = capfd.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines] == ["[1/3", "[2/3", "[3/3"]


def test_a_run_that_kills_its_worker_every_time_is_reported_and_stops_nobody_else(
    toys: Toys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOY_FAULT", "kill@1")
    monkeypatch.setenv("TOY_FAULT_SEED", "0")
    configs = _configs(toys)
    problems = run_all(configs, 2)
    assert problems == [Problem("toy toy_mlp dfa seed 0", "its worker process died 3 times (out of memory?)")]
    assert [metrics is None for metrics in _metrics(configs)] == [True, False, False]


@pytest.mark.parametrize(("fault", "status"), [("nan@2", "diverged"), ("raise@2", "failed")])
def test_failing_runs_are_listed_and_the_others_done(
    toys: Toys, monkeypatch: pytest.MonkeyPatch, fault: str, status: str, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TOY_FAULT", fault)
    monkeypatch.setenv("TOY_FAULT_SEED", "1")
    configs = [*_configs(toys), toys.config("model.points=[nowhere]"), toys.config("rule=shallow")]
    problems = run_all(configs, 1)
    assert [problem.name for problem in problems] == ["toy toy_mlp dfa seed 1", "toy toy_mlp bp seed 0"]
    assert "'nowhere' matches no module" in problems[1].reason
    statuses = [(RunFolder.of(config).read() or {}).get("status") for config in configs]
    assert statuses == ["done", status, "done", None, "done"]
    assert "[5/5" in capsys.readouterr().out.splitlines()[-1]


def test_a_run_that_another_process_holds_is_left_to_the_end(toys: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    configs = _configs(toys)
    order: list[tuple[int, bool]] = []

    def attempt(content: dict[str, dict[str, int]], wait_for_others: bool) -> dict[str, object]:
        order.append((content["seed"], wait_for_others))  # type: ignore[arg-type]
        if content["seed"] == 0 and not wait_for_others:  # type: ignore[comparison-overlap]
            return {"busy": True}
        return {"status": "done", "task": "", "model": "", "rule": "", "seed": 0}

    monkeypatch.setattr(workers, "_attempt", attempt)
    assert run_all(configs, 1) == []
    assert order == [(0, False), (1, False), (2, False), (0, True)]


def test_no_more_workers_than_cores_by_default() -> None:
    assert default_jobs() >= 1
