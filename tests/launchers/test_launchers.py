"""Launchers: the same numbers from each, workers that die, runs that others hold, launchers that are not there."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch

from benchmarks.commands import reproduce
from benchmarks.commands import train as cli
from benchmarks.commands.options import overrides
from benchmarks.config import Config, identity, to_dict
from benchmarks.errors import ConfigError, ResultsError
from benchmarks.launchers import launch, local, make_launcher, report, serial, settings_among
from benchmarks.launchers.base import Deaths
from benchmarks.launchers.chaos import left_over
from benchmarks.launchers.report import Problem
from benchmarks.run.execute import execute
from benchmarks.run.records import RunFolder
from benchmarks.utils.paths import REPOSITORY
from tests.conftest import TOY, Command, Toys

SERIAL, TWO = {"name": "serial"}, {"name": "local", "jobs": 2}


def metrics(configs: list[Config]) -> list[object]:
    return [(RunFolder.of(config).read() or {}).get("metrics") for config in configs]


def some(toys: Toys, *overrides: str) -> list[Config]:
    return [toys.config("rule=dfa", f"seed={seed}", "run.checkpoint_seconds=0", *overrides) for seed in range(3)]


def test_two_workers_one_of_which_dies_once_equal_one(
    toys: Toys, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    alone = some(toys.elsewhere("alone"))
    assert launch(alone, SERIAL) == []
    monkeypatch.setenv("TOY_FAULT", "exit@9")
    monkeypatch.setenv("TOY_FAULT_SEED", "1")
    monkeypatch.setenv("TOY_FAULT_ONCE", str(tmp_path / "died"))
    together = some(toys)
    capfd.readouterr()
    assert launch(together, TWO) == []
    assert (tmp_path / "died").exists()
    assert metrics(together) == metrics(alone) and None not in metrics(alone)
    lines = capfd.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines] == ["[1/3", "[2/3", "[3/3"]


def test_a_run_that_kills_its_worker_every_time_is_recorded_as_failed_and_stops_nobody_else(
    toys: Toys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOY_FAULT", "SIGKILL@1")
    monkeypatch.setenv("TOY_FAULT_SEED", "0")
    configs = some(toys)
    assert launch(configs, TWO) == [
        Problem("toy toy_mlp dfa seed 0", "its worker process died 3 times (out of memory?)")
    ]
    records = [RunFolder.of(config).read() or {} for config in configs]
    assert [record["status"] for record in records] == ["failed", "done", "done"]
    assert records[0].keys() | {"reason"} == records[1].keys() | {"reason"}
    assert launch(configs, TWO)[0].status == "failed", "recorded, so not tried again"


def test_deaths_count_as_long_as_a_run_gets_no_further(toys: Toys) -> None:
    config, deaths = toys.config(), Deaths()
    folder = RunFolder.of(config)
    folder.path.mkdir(parents=True)
    for step in range(4):  # each time it had come a little further
        folder.save_checkpoint({"step": step})
        assert deaths.give_up(config, "worker") is None
    assert deaths.give_up(config, "worker") is None
    outcome = deaths.give_up(config, "worker")
    assert outcome is not None and outcome["reason"] == "its worker died 3 times (out of memory?)"
    assert not folder.has_checkpoint, "it would only die again"


def test_workers_that_cannot_begin_are_an_error(toys: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        local, "_serve", os._exit
    )  # pickled by name, it ends the process: exit code 1 for a bad argument
    with pytest.raises(ResultsError, match="worker processes end before they begin"):
        launch(some(toys), TWO)


@pytest.mark.parametrize(("fault", "status"), [("nan@2", "diverged"), ("raise@2", "failed"), ("memory@2", "failed")])
def test_failing_runs_are_listed_and_the_others_done(
    toys: Toys, monkeypatch: pytest.MonkeyPatch, fault: str, status: str, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TOY_FAULT", fault)
    monkeypatch.setenv("TOY_FAULT_SEED", "1")
    configs = [*some(toys), toys.config("model.points=[nowhere]"), toys.config("rule=shallow")]
    problems = launch(configs, SERIAL)
    assert [(problem.name, problem.status, problem.run) for problem in problems] == [
        ("toy toy_mlp dfa seed 1", status, identity(configs[1])),
        ("toy toy_mlp bp seed 0", "", identity(configs[3])),
    ]
    assert "'nowhere' matches no module" in problems[1].reason
    assert fault != "memory@2" or problems[0].reason == "out of memory"
    statuses = [(RunFolder.of(config).read() or {}).get("status") for config in configs]
    assert statuses == ["done", status, "done", None, "done"]
    lines = capsys.readouterr().out.splitlines()
    assert "[5/5" in lines[-1] and problems[0].reason in lines[1]


def test_the_time_left_is_told_by_the_runs_that_were_not_recorded_before(
    toys: Toys, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, third = some(toys)
    launch([second], SERIAL)
    capsys.readouterr()
    clock = iter([0.0, 60.0, 90.0])  # the beginning, and each line that tells a time
    outcomes = [(config, execute(config)) for config in (first, third)]
    for config in (first, third):
        RunFolder.of(config).result.unlink()
    monkeypatch.setattr(report, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    told = report.Report([second, first, third])
    for config, outcome in [(second, execute(second)), *outcomes]:
        told.take(config, outcome)
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition("]")[0] for line in lines] == ["[1/3", "[2/3, 1 min 0 s left", "[3/3, 0 s left"]


def test_a_run_that_another_process_holds_is_left_to_the_end(toys: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[tuple[int, bool]] = []

    def attempt(content: dict[str, Any], wait_for_others: bool) -> dict[str, object]:
        order.append((content["seed"], wait_for_others))
        if content["seed"] == 0 and not wait_for_others:
            return {"busy": True}
        return {"status": "done", "task": "", "model": "", "rule": "", "seed": 0, "seconds": 0.0}

    monkeypatch.setattr(serial, "attempt", attempt)
    assert launch(some(toys), SERIAL) == []
    assert order == [(0, False), (1, False), (2, False), (0, True)]


_DRIVER = (
    "import json, sys\n"
    "from benchmarks.utils.exits import guarded\n"
    "from benchmarks.config import from_dict\n"
    "from benchmarks.launchers import launch\n"
    "if __name__ == '__main__':\n"
    "    configs = [from_dict(content) for content in json.load(open(sys.argv[1]))]\n"
    "    sys.exit(guarded(lambda: len(launch(configs, {'name': 'local', 'jobs': 2})), resumes=True))\n"
)


def test_a_driver_that_is_asked_to_stop_stops_its_workers_at_a_checkpoint(toys: Toys, tmp_path: Path) -> None:
    configs = [toys.config(f"seed={seed}", "trainer.epochs=60") for seed in range(3)]
    (tmp_path / "configs.json").write_text(json.dumps([to_dict(config) for config in configs]))
    (tmp_path / "driver.py").write_text(_DRIVER)
    environment = {**os.environ, "TOY_PAUSE": "0.1", "PYTHONPATH": str(REPOSITORY)}
    driver = subprocess.Popen(
        [sys.executable, str(tmp_path / "driver.py"), str(tmp_path / "configs.json")],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    folders = [RunFolder.of(config) for config in configs]
    wait_until(lambda: sum(folder.metrics.exists() and folder.metrics.stat().st_size > 0 for folder in folders) == 2)
    children = psutil.Process(driver.pid).children(recursive=True)
    driver.send_signal(signal.SIGTERM)
    _, err = driver.communicate(timeout=30)
    assert left_over(children, 10) == []
    assert driver.returncode == 143
    assert err.splitlines() == [
        "stopping 2 runs at a checkpoint; a second signal stops at once",
        "interrupted; the same command resumes from the last checkpoint",
    ]
    assert [folder.has_checkpoint for folder in folders] == [True, True, False]
    assert not any(folder.result.exists() or folder.is_held() for folder in folders)
    # 300 steps each: not the whole run again.
    state = folders[0].load_checkpoint()
    assert state is not None and state["position"]["step"] > 5


def test_a_worker_is_asked_to_stop_when_its_driver_is_gone() -> None:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    driver = context.Process(target=_driver_that_is_killed, args=(theirs,))
    driver.start()
    worker = psutil.Process(ours.recv())
    ours.send("now")
    driver.join()
    assert driver.exitcode == -signal.SIGKILL and left_over([worker], 10) == []


def _driver_that_is_killed(channel: Connection) -> None:
    worker = multiprocessing.get_context("fork").Process(target=_idle_worker)
    worker.start()
    channel.send(worker.pid)
    channel.recv()
    os.kill(os.getpid(), signal.SIGKILL)


def _idle_worker() -> None:
    threading.Thread(target=local._stop_with_parent, daemon=True).start()
    time.sleep(60)


def wait_until(condition: Any, seconds: float = 60.0) -> None:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, "waited in vain"
        time.sleep(0.05)


def test_each_worker_gets_its_share_of_the_cores_and_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert local.worker_environment(0, 3, "cpu") == {"OMP_NUM_THREADS": "2"}
    assert local.worker_environment(0, 20, "cpu") == {"OMP_NUM_THREADS": "1"}
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    environments = [local.worker_environment(place, 4, "cuda") for place in range(4)]
    assert [environment["CUDA_VISIBLE_DEVICES"] for environment in environments] == ["0", "1", "0", "1"]
    assert "CUDA_VISIBLE_DEVICES" not in local.worker_environment(0, 4, "cuda:1")
    assert [local.Local().width(device) for device in ("cpu", "cuda", "cuda:1")] == [8, 2, 1]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7,9")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert local.worker_environment(2, 3, "cuda") == {"OMP_NUM_THREADS": "3", "CUDA_VISIBLE_DEVICES": "9"}
    assert local.Local().width("cuda") == 3 and local.Local(jobs=6).width("cuda") == 6
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert local.visible_gpus("cuda") == []


def test_a_worker_starts_without_sigint_and_leaves_ours_alone() -> None:
    with local._no_sigint():
        code = "import signal; print(signal.SIGINT in signal.pthread_sigmask(0, []))"
        assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "True\n"
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_launcher_settings_do_not_change_a_run(toys: Toys) -> None:
    one, other = toys.config(), toys.config("launcher=slurm", "launcher.minutes=5")
    assert RunFolder.of(one) == RunFolder.of(other)
    assert settings_among(["task=toy", "launcher=slurm", "launcher.minutes=5", "run.device=cuda"]) == (
        {**other.launcher},
        "cuda",
    )


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["launcher=lsf"], "unknown launcher 'lsf'; known: local, ray, serial, slurm"),
        (["launcher.name=lsf"], "unknown launcher 'lsf'; known: local, ray, serial, slurm"),
        (["+launcher.colour=red"], "launcher 'local' has no option 'colour'; known: jobs"),
        (["launcher.jobs=many"], "launcher 'local': option 'jobs' must be of type int | None, got 'many'"),
        (["launcher.jobs=0"], "launcher.jobs must be at least 1, got 0"),
        (["launcher=slurm"], "launcher 'slurm' needs the package 'submitit', which is not installed"),
        (["launcher=ray"], "launcher 'ray' needs the package 'ray', which is not installed"),
    ],
)
def test_a_launcher_that_is_not_there_is_one_line_and_exit_code_2(
    toys: Toys, command: Command, monkeypatch: pytest.MonkeyPatch, overrides: list[str], message: str
) -> None:
    monkeypatch.setattr("benchmarks.launchers.base.import_module", _refuse)
    settings = [word for override in overrides for word in ("--set", override)]
    for main, arguments in [
        (cli.main, [*toys.overrides, *overrides]),
        (cli.main, ["-m", *toys.overrides, *overrides, "seed=0,1"]),
        (reproduce.main, ["table_3", "--results", str(toys.results), "--set", f"plugins=[{TOY}]", *settings]),
    ]:
        code, out, err = command(main, *arguments)
        assert (code, out, err.count("\n")) == (2, "", 1) and err.startswith("error: ") and message in err, err
    assert toys.files() in ([], ["runs/.sweeps/multirun.yaml"])


def _refuse(package: str) -> None:
    raise ImportError(package)


def test_the_option_of_reproduce_is_the_configurations_launcher() -> None:
    parser = reproduce.make_parser()
    options = parser.parse_args(["table_3", "--launcher", "serial", "--set", "launcher.x=1", "--jobs", "3"])
    assert overrides(options) == ["launcher=serial", "launcher.jobs=3", "launcher.x=1"]
    with pytest.raises(ConfigError):
        make_launcher({"name": "serial", "jobs": 2})
