"""A run from its configuration to its record: the same twice, the same after being killed, never two at once."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.config import Config, to_dict
from benchmarks.errors import ConfigError, DataError
from benchmarks.registry import TASKS
from benchmarks.run.build import load_components
from benchmarks.run.execute import execute
from benchmarks.run.record_schema import Record
from benchmarks.run.records import RunBusy, RunFolder
from benchmarks.utils.paths import REPOSITORY
from tests.conftest import RAISED_AT, Toys

_LONG = ["trainer.epochs=4", "optimizer.lr=0.05", "rule=dfa", "+model.options.dropout=0.4", "run.checkpoint_seconds=0"]
_CHILD = "import json, sys; from benchmarks import config; from benchmarks.run import execute; "
_CHILD += "print(execute.execute(config.from_dict(json.load(sys.stdin)))['status'])"


def _outcome(record: Record, folder: RunFolder) -> tuple[Record, str, dict[str, list[Tensor]]]:
    """All that must not depend on when and in how many sittings a run was carried out."""
    varying = ("seconds", "steps_per_second", "peak_memory_mb", "finished")
    weights = {which: list(load_file(folder.weights(which)).values()) for which in ("best", "last")}
    return {key: value for key, value in record.items() if key not in varying}, folder.metrics.read_text(), weights


def _assert_same(one: tuple[Record, RunFolder], other: tuple[Record, RunFolder]) -> None:
    first, second = _outcome(*one), _outcome(*other)
    assert first[:2] == second[:2]
    for which in ("best", "last"):
        assert all(torch.equal(a, b) for a, b in zip(first[2][which], second[2][which], strict=True))


def _start(config: Config, **environment: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", _CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=REPOSITORY,
        env={**os.environ, **environment},
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(to_dict(config)).encode())
    process.stdin.close()
    process.stdin = None
    return process


def _leave_at(monkeypatch: pytest.MonkeyPatch, config: Config, batch: int) -> None:
    """Begin a run and end it before its n-th batch as if the process had been killed."""
    monkeypatch.setenv("TOY_FAULT", f"leave@{batch}")
    with pytest.raises(BaseException) as left:
        execute(config)
    assert type(left.value).__name__ == "Left"
    monkeypatch.delenv("TOY_FAULT")


def test_twice_the_same_numbers(toys: Toys) -> None:
    torch.manual_seed(5)
    once = toys.run(*_LONG)
    torch.rand(3)  # what happened before in the process must not matter
    _assert_same(once, toys.elsewhere("again").run(*_LONG))


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["trainer.patience=2", "+task.options.worse=true", "trainer.epochs=9"],
        ["trainer.evaluate_unit=step", "trainer.evaluate_every=3"],
        ["trainer.accumulate=3", "schedule=exponential"],
        ["schedule=plateau", "trainer.selection=best", "rule.options.sharing=per_point"],
        ["trainer.steps=17", "trainer.precision=bfloat16", "trainer.clip_norm=0.1", "schedule=noam"],
    ],
    ids=["plain", "patience", "by-step", "accumulate", "plateau", "steps"],
)
def test_killed_at_any_batch_and_begun_again_gives_the_same(
    toys: Toys, monkeypatch: pytest.MonkeyPatch, options: Sequence[str]
) -> None:
    whole = toys.run(*_LONG, *options)
    broken = toys.elsewhere("broken")
    config = broken.config(*_LONG, *options)
    last = 15 if "trainer.patience=2" in options else 17
    batch = random.Random(str(options)).randint(2, last)
    _leave_at(monkeypatch, config, batch)
    _leave_at(monkeypatch, config, 1)  # and again, at once after it was taken up
    resumed = broken.run(*_LONG, *options)
    _assert_same(whole, resumed)
    assert len(resumed[1].history()) == len({row["step"] for row in resumed[1].history()})
    assert not resumed[1].checkpoint.exists()


@pytest.mark.parametrize(
    "rule",
    [
        ["rule=dkp"],
        ["rule=low_rank", "rule.options.rank=2"],
        ["rule=fdfa", "rule.options.every=2"],
        ["rule=kolen_pollack"],
        ["rule=calibrate", "rule.options.every=3", "rule.options.rule=grape"],
        ["rule=dfa", "+rule.options.codec='noise:0.3'"],
    ],
    ids=["dkp", "low_rank", "fdfa", "kolen_pollack", "calibrate", "noise"],
)
def test_what_a_rule_has_learned_outlives_the_process(
    toys: Toys, monkeypatch: pytest.MonkeyPatch, rule: Sequence[str]
) -> None:
    options = [*(item for item in _LONG if item != "rule=dfa"), *rule]
    whole = toys.run(*options)
    broken = toys.elsewhere("broken")
    _leave_at(monkeypatch, broken.config(*options), 8)
    _assert_same(whole, broken.run(*options))


def test_an_exact_batch_once_an_epoch(toys: Toys) -> None:
    batches = toys.run("rule=calibrate", "rule.options.every=5")  # 60 samples, 12 a batch
    epoch = toys.run("rule=calibrate", "rule.options.every=epoch")
    assert batches[1].history() == epoch[1].history() and batches[0]["metrics"] == epoch[0]["metrics"]
    assert epoch[0]["uses"]["bp_batches"] == 0.2


def test_a_run_is_taken_up_where_its_checkpoint_lies_and_not_from_the_start(
    toys: Toys, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = toys.config(*_LONG)
    _leave_at(monkeypatch, config, 9)
    # 20 batches in all, 8 done: the 13th of the second sitting does not exist.
    monkeypatch.setenv("TOY_FAULT", "raise@13")
    assert execute(config)["status"] == "done"


def test_what_came_after_the_last_checkpoint_is_run_again_without_double_lines(
    toys: Toys, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = toys.run(*_LONG)
    broken = toys.elsewhere("broken")
    config = broken.config(*_LONG)
    folder = RunFolder.of(config)
    _leave_at(monkeypatch, config, 4)
    early = folder.checkpoint.read_bytes()
    _leave_at(monkeypatch, config, 10)
    assert len(folder.history()) == 2
    folder.checkpoint.write_bytes(early)
    with folder.metrics.open("a") as history:
        history.write('{"epoch": 3, "st')  # a line cut short by the end of the process
    _assert_same(whole, broken.run(*_LONG))


def test_killed_for_real_and_two_processes_at_once(toys: Toys) -> None:
    """SIGKILL leaves a lock and a checkpoint behind; then two processes take the run up, and one of them trains."""
    whole = toys.run(*_LONG)
    broken = toys.elsewhere("broken")
    config = broken.config(*_LONG)
    folder = RunFolder.of(config)
    killed = _start(config, TOY_FAULT="SIGKILL@8")
    assert killed.wait(60) == -signal.SIGKILL
    assert folder.checkpoint.exists() and not folder.result.exists()
    both = [_start(config), _start(config)]
    assert [process.communicate(timeout=60)[0].strip() for process in both] == [b"done", b"done"]
    record = folder.read()
    assert record is not None
    _assert_same(whole, (record, folder))


def test_a_busy_run_is_reported_or_waited_for(toys: Toys) -> None:
    config = toys.config()
    folder = RunFolder.of(config)
    with folder.locked(), pytest.raises(RunBusy):
        execute(config, wait=False)
    assert execute(config, wait=False)["status"] == "done"


def test_a_finished_run_is_not_run_again(toys: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    record, folder = toys.run()
    stamp = folder.result.stat().st_mtime_ns
    monkeypatch.setenv("TOY_FAULT", "raise@1")
    assert toys.run()[0] == record
    assert toys.run("run.retry=true")[0] == record
    assert folder.result.stat().st_mtime_ns == stamp


@pytest.mark.parametrize(("fault", "status"), [("nan@12", "diverged"), ("raise@12", "failed")])
def test_an_unsuccessful_run_leaves_a_record_and_retry_runs_it_again(
    toys: Toys, monkeypatch: pytest.MonkeyPatch, fault: str, status: str
) -> None:
    monkeypatch.setenv("TOY_FAULT", fault)
    record, folder = toys.run("run.checkpoint_seconds=0")
    assert record["status"] == status
    assert {"diverged": "loss is nan at step 15", "failed": "ZeroDivisionError: the toy is broken"}[status] in str(
        record["reason"]
    )
    if status == "failed":  # the toy is code of the user's own, as a plug-in is
        assert record["reason"].endswith(f"broken (toy.py, line {RAISED_AT})")
        assert f'toy.py", line {RAISED_AT}' in record["trace"] and "trainer.py" in record["trace"]
    assert record["metrics"] == {} and len(folder.history()) == 2
    assert not folder.checkpoint.exists()
    monkeypatch.delenv("TOY_FAULT")
    assert toys.run()[0] == record
    again, _ = toys.run("run.retry=true", "run.checkpoint_seconds=0")
    _assert_same((again, folder), toys.elsewhere("other").run())


def test_weights_that_blow_up_in_the_last_step_are_a_divergence(toys: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    # The loss before the last update is finite; what the update made is not, and only its use would show it.
    record, _ = toys.run("optimizer=sgd", "optimizer.lr=1e39", "trainer.steps=1")
    assert (record["status"], record["metrics"]) == ("diverged", {})
    assert "is not finite at step 1" in record["reason"]


@pytest.mark.parametrize("split", ["valid", "test"])
def test_a_result_that_is_no_number_is_a_divergence(toys: Toys, monkeypatch: pytest.MonkeyPatch, split: str) -> None:
    config = toys.config()
    load_components(config)

    def evaluate(task: Any, model: Any, of: str) -> dict[str, float]:
        ended = RunFolder.of(config).path.joinpath("last.safetensors").exists()
        return {"accuracy": float("nan") if of == split and ended else 0.5, "log_loss": float("nan")}

    monkeypatch.setattr(TASKS["toy"], "evaluate", evaluate)
    record, _ = toys.run()
    assert (record["status"], record["metrics"]) == ("diverged", {})
    assert record["reason"] == f"{split} accuracy is nan after training"


def test_a_record_says_what_is_needed_to_judge_it(toys: Toys) -> None:
    record, folder = toys.run("rule=dfa", "seed=3", "scale=mini")
    expected: dict[str, Any] = {"task": "toy", "model": "toy_mlp", "rule": "dfa", "seed": 3, "scale": "mini"}
    assert expected.items() <= record.items()
    assert record["data"] == {"name": "toy", "kind": "stand-in", "checksums": {}, "notes": {}}
    assert record["parameters"] == 8 * 16 + 16 + 16 * 16 + 16 + 16 * 3 + 3
    assert record["versions"]["torch"] == torch.__version__ and record["device"].startswith("cpu")
    assert record["seconds"] > 0 and record["peak_memory_mb"] > 10
    assert set(record) >= {"commit", "git_dirty", "config_hash", "best_epoch", "steps_per_second", "threads"}
    assert json.loads(folder.result.read_text()) == record


def test_a_failing_model_a_bad_option_and_missing_data_leave_nothing_behind(toys: Toys) -> None:
    for options, kind, message in [
        (["+model.options.output=detached"], ConfigError, "gradient"),
        (["+model.options.output=decisions"], ConfigError, "gradient"),
        (["model.points=[unused]", "rule=dfa"], ConfigError, "never reached"),
        (["model.points=[layers.*]"], ConfigError, r"'layers\.\*' matches no module; candidates: "),
        (["+model.options.dropout=2.0"], ConfigError, "dropout probability has to be between 0 and 1"),
        (["+optimizer.options.betas=[2.0,3.0]"], ConfigError, "Invalid beta"),
        (["rule=drtp", "trainer.accumulate=2"], ConfigError, r"'drtp' needs whole batches: .* trainer\.accumulate=1"),
        (["task.source=real", "+task.options.file=clouds.csv"], DataError, "clouds.csv; place them there"),
    ]:
        with pytest.raises(kind, match=message) as raised:
            print(options, toys.run(*options))
        assert "\n" not in str(raised.value)
        assert not (toys.results / "runs").exists()


def test_missing_data_does_not_cost_a_run_its_checkpoint(toys: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    data = toys.results.parent
    options = ["task.source=real", "+task.options.file=f.csv", f"run.data_dir={data}", "run.checkpoint_seconds=0"]
    (data / "f.csv").touch()
    _leave_at(monkeypatch, toys.config(*options), 4)
    (data / "f.csv").unlink()
    with pytest.raises(DataError):
        toys.run(*options)
    (data / "f.csv").touch()
    monkeypatch.setenv("TOY_FAULT", "raise@13")
    assert toys.run(*options)[0]["status"] == "done"


def test_an_error_of_reading_in_the_task_is_not_blamed_on_the_results_folder(
    toys: Toys, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = toys.config()
    load_components(config)
    from benchmarks.registry import TASKS

    def unreadable(*arguments: Any) -> Any:
        raise FileNotFoundError(2, "No such file or directory", "shard_7.bin")

    monkeypatch.setattr(TASKS["toy"], "evaluate", unreadable)
    record = execute(config)
    assert record["status"] == "failed" and "shard_7.bin" in record["reason"]


def test_waiting_for_a_lock_ends_when_its_holder_does(toys: Toys) -> None:
    config = toys.config()
    folder = RunFolder.of(config)
    folder.path.mkdir(parents=True)
    code = "import sys, time, filelock; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); print(flush=True)"
    holder = subprocess.Popen(
        [sys.executable, "-c", f"{code}; time.sleep(60)", str(folder.path / ".lock")], stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    with pytest.raises(RunBusy):
        execute(config, wait=False)
    holder.kill()
    holder.wait()
    began = time.monotonic()
    assert execute(config)["status"] == "done"
    assert time.monotonic() - began < 10
