"""Sweeps of the command line: they go on past runs that fail, and land in the folders of single runs."""

import importlib
from pathlib import Path

import pytest
from hydra.core.plugins import Plugins

from benchmarks.commands import train as cli
from benchmarks.config import Config
from benchmarks.launchers import sweep
from benchmarks.run.records import RunFolder
from tests.conftest import Command, Toys


def test_a_sweep_lands_in_the_folders_of_single_runs(toys: Toys, command: Command) -> None:
    code, _, err = command(
        cli.main, "-m", *toys.overrides, "model=toy_mlp,toy_wide", "rule=dfa,shallow", "seed=0,1", "trainer.epochs=1"
    )
    assert (code, err) == (0, "")
    for model in ("toy_mlp", "toy_wide"):
        for rule in ("dfa", "shallow"):
            for seed in (0, 1):
                chosen = [f"model={model}", f"rule={rule}", f"seed={seed}", "trainer.epochs=1"]
                record = RunFolder.of(toys.config(*chosen)).read()
                assert record is not None and (record["rule"], record["seed"]) == (rule, seed)
    assert len(list(toys.results.rglob("result.json"))) == 8
    single, _ = toys.elsewhere("single").run("rule=dfa", "seed=1", "trainer.epochs=1")
    swept = RunFolder.of(toys.config("rule=dfa", "seed=1", "trainer.epochs=1")).read()
    assert swept is not None and swept["metrics"] == single["metrics"]


def test_a_sweep_goes_on_past_runs_that_fail_or_cannot_be_run(
    toys: Toys, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOY_FAULT", "nan@2")
    monkeypatch.setenv("TOY_FAULT_SEED", "1")
    code, _, err = command(cli.main, "-m", *toys.overrides, "launcher=serial", "seed=0,1,2", "trainer.epochs=1")
    assert code == 1
    assert err.splitlines() == ["error: toy toy_mlp bp seed 1: diverged: the training loss is nan at step 5"]
    states = [RunFolder.of(toys.config(f"seed={seed}", "trainer.epochs=1")).read() for seed in range(3)]
    assert [state and state["status"] for state in states] == ["done", "diverged", "done"]
    points = "model.points=[blocks.9.act],[blocks.0.act]"
    code, _, err = command(cli.main, "-m", *toys.overrides, "launcher=serial", "seed=0,1", points)
    assert code == 2
    assert len(err.splitlines()) == 2 and "2 runs: pattern 'blocks.9.act'" in err and "diverged" in err
    assert RunFolder.of(toys.config("model.points=[blocks.0.act]")).result.exists()


def test_a_record_that_cannot_be_read_hides_no_other_run(toys: Toys, command: Command) -> None:
    damaged = RunFolder.of(toys.config("seed=1")).result
    damaged.parent.mkdir(parents=True)
    damaged.write_text("{")
    code, out, err = command(cli.main, "-m", *toys.overrides, "launcher=serial", "seed=0,1,2")
    assert code == 1 and err.count("\n") == 1
    assert f"toy toy_mlp bp seed 1: damaged: its record '{damaged}' cannot be read" in err
    assert [f"seed {seed}: done (paper scale" in out for seed in range(3)] == [True, False, True]


def test_a_sweep_in_another_order_and_with_more_values_keeps_what_is_there(toys: Toys, command: Command) -> None:
    def run_sweep(*axes: str) -> dict[Path, int]:
        assert command(cli.main, "-m", *toys.overrides, "trainer.epochs=1", "launcher=serial", *axes)[0] == 0
        return {path: path.stat().st_mtime_ns for path in toys.results.rglob("result.json")}

    first = run_sweep("seed=0,1", "optimizer.lr=0.1,0.2")
    assert len(first) == 4
    again = run_sweep("optimizer.lr=0.3,0.2,0.1", "seed=2,1,0")
    assert len(again) == 9 and first.items() <= again.items()


def test_a_sweep_uses_the_launcher_of_its_configuration_once_for_all_runs(
    toys: Toys, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def launch(configs: list[Config], settings: dict[str, object], shown: bool) -> list[object]:
        calls.append(([config.seed for config in configs], settings, shown))
        return []

    monkeypatch.setattr(sweep, "launch", launch)
    command(cli.main, "-m", *toys.overrides, "seed=2,0,1", "launcher.jobs=5")
    command(cli.main, *toys.overrides)
    local = {"name": "local", "jobs": 5}
    assert calls == [([2, 0, 1], local, True), ([0], local | {"jobs": None}, False)]


def test_a_sweep_tells_its_sweeper_the_best_value_on_validation(
    toys: Toys, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    returned = []
    Plugins.instance()  # which loads it
    launcher = importlib.import_module("hydra_plugins.dfa_benchmarks").SuiteLauncher
    genuine = launcher.launch

    def launch(*arguments: object, **options: object) -> object:
        returned.extend(genuine(*arguments, **options))
        return returned

    monkeypatch.setattr(launcher, "launch", launch)
    command(cli.main, "-m", *toys.overrides, "seed=0,1", "launcher=serial")
    records = [RunFolder.of(toys.config(f"seed={seed}")).read() for seed in (0, 1)]
    assert [job.return_value for job in returned] == [record and record["best_valid"] for record in records]
