"""Signals: a run stops between two steps, other code at once, and a second signal kills the process."""

import os
import signal
import subprocess
import sys
from contextlib import suppress

import psutil
import pytest

from benchmarks.commands import train as cli
from benchmarks.launchers.chaos import left_over
from benchmarks.run.execute import execute
from benchmarks.run.records import RunFolder
from benchmarks.utils.paths import REPOSITORY
from benchmarks.utils.signals import SIGNALS, Interrupted, deferred, handle_signals, received, stop_if_asked
from tests.conftest import Command, Toys
from tests.run.test_execute import _assert_same

_LONG = ["trainer.epochs=4", "optimizer.lr=0.05", "rule=dfa", "+model.options.dropout=0.4"]


def _stopped_at(toys: Toys, monkeypatch: pytest.MonkeyPatch, fault: str, *options: str) -> dict[str, int]:
    """Return the position in the checkpoint of a run that received a signal within a batch."""
    config = toys.config(*_LONG, *options)
    with monkeypatch.context() as patch, handle_signals(), pytest.raises(Interrupted) as stopped:
        patch.setenv("TOY_FAULT", fault)
        execute(config)
    assert stopped.value.signal.name == fault.split("@")[0]
    folder = RunFolder.of(config)
    assert not folder.result.exists() and not folder.is_held()
    state = folder.load_checkpoint()
    assert state is not None
    position: dict[str, int] = state["position"]
    return position


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2"])
def test_a_signal_stops_a_run_after_its_step_and_it_goes_on_to_the_same(
    toys: Toys, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    position = _stopped_at(toys, monkeypatch, f"{name}@8")
    assert (position["step"], position["epoch"], position["batch"]) == (8, 2, 3)
    _assert_same(toys.elsewhere("whole").run(*_LONG), toys.run(*_LONG))


@pytest.mark.parametrize(
    ("fault", "options", "step"),
    [
        # 5 batches an epoch in groups of 3 and 2: the 7th is the second of its group, which ends with the 8th.
        ("SIGTERM@7", ["trainer.accumulate=3"], 3),
        ("SIGTERM@20", [], 20),  # the very last batch: what is left is the test
        ("SIGTERM@12", ["trainer.steps=12"], 12),
    ],
    ids=["within a group", "last batch", "last step"],
)
def test_where_a_run_can_stop(
    toys: Toys, monkeypatch: pytest.MonkeyPatch, fault: str, options: list[str], step: int
) -> None:
    assert _stopped_at(toys, monkeypatch, fault, *options)["step"] == step
    _assert_same(toys.elsewhere("whole").run(*_LONG, *options), toys.run(*_LONG, *options))


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGUSR2", 143)])
def test_a_command_ends_with_a_code_of_its_own_and_records_no_failure(
    toys: Toys, command: Command, monkeypatch: pytest.MonkeyPatch, name: str, code: int
) -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    monkeypatch.setenv("TOY_FAULT", f"{name}@4")
    assert command(cli.main, "-m", *toys.overrides, "launcher=serial", "seed=0,1") == (
        code,
        "",
        "interrupted; the same command resumes from the last checkpoint\n",
    )
    assert not list(toys.results.rglob("result.json"))
    assert [signal.getsignal(number) for number in SIGNALS] == before
    monkeypatch.delenv("TOY_FAULT")
    assert command(cli.main, "-m", *toys.overrides, "launcher=serial", "seed=0,1")[0] == 0


def test_outside_of_training_a_request_is_obeyed_at_once() -> None:
    with handle_signals(), pytest.raises(Interrupted, match="SIGTERM"):
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("not reached")
    assert received() == ()


def test_a_deferred_request_waits_for_whoever_deferred_it() -> None:
    with handle_signals(kill_on_second=False):
        with deferred():
            os.kill(os.getpid(), signal.SIGUSR1)
            os.kill(os.getpid(), signal.SIGTERM)
        assert received() == (signal.SIGUSR1, signal.SIGTERM)
        with pytest.raises(Interrupted, match="SIGUSR1"):
            stop_if_asked()


def test_a_second_signal_ends_the_process_and_its_workers_at_once() -> None:
    code = (
        "import multiprocessing, os, signal, time\n"
        "from benchmarks.utils.signals import deferred, handle_signals\n"
        "if __name__ == '__main__':\n"
        "    worker = multiprocessing.get_context('fork').Process(target=time.sleep, args=(60,))\n"
        "    worker.start()\n"
        "    with handle_signals(), deferred():\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        print(worker.pid, flush=True)\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        print('not reached')\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, timeout=30)
    assert ended.returncode == -signal.SIGTERM
    assert ended.stderr == "stopping after this step, with a checkpoint; a second signal stops at once\n"
    with suppress(psutil.NoSuchProcess):
        assert left_over([psutil.Process(int(ended.stdout))], 5) == []
