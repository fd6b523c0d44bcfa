"""Ray: what it is asked for, tasks that die or are cancelled, and, where it is installed, a cluster of two nodes."""

import os
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.config import Config
from benchmarks.errors import ConfigError
from benchmarks.launchers import launch, make_launcher
from benchmarks.launchers import ray as ray_launcher
from benchmarks.launchers.base import Deaths
from benchmarks.launchers.report import Outcome
from benchmarks.run.records import RunFolder
from benchmarks.utils.signals import Interrupted, handle_signals
from tests.conftest import Toys
from tests.launchers.test_launchers import metrics, some, wait_until


class _NodeDied(Exception):
    pass


class _Reference:
    """Stands for the promise of a task's result."""

    def __init__(self, function: Callable[..., Any], arguments: Sequence[Any]) -> None:
        self.function, self.arguments = function, arguments


class _Ray:
    """Stands for the package; a task is carried out when its result is asked for."""

    exceptions = SimpleNamespace(RayError=_NodeDied)

    def __init__(self) -> None:
        self.asked: dict[str, Any] = {}
        self.deaths: dict[int, int] = {}  # by seed: how often its task dies
        self.under_way_at_most = 0
        self.cancelled: list[_Reference] = []
        self.shut_down = False

    def init(self, **options: Any) -> None:
        self.asked |= options

    def remote(self, **needs: Any) -> Callable[..., Any]:
        self.asked |= needs
        return lambda function: SimpleNamespace(remote=lambda *arguments: _Reference(function, arguments))

    def wait(
        self, references: Sequence[_Reference], num_returns: int = 1, timeout: float = 0
    ) -> tuple[Sequence[_Reference], Sequence[_Reference]]:
        self.under_way_at_most = max(self.under_way_at_most, len(references))
        return references[:num_returns], references[num_returns:]

    def get(self, reference: _Reference) -> Any:
        seed = reference.arguments[1]["seed"]
        if self.deaths.get(seed, 0):
            self.deaths[seed] -= 1
            raise _NodeDied
        return reference.function(*reference.arguments)

    def cancel(self, reference: _Reference) -> None:
        self.cancelled.append(reference)

    def shutdown(self) -> None:
        self.shut_down = True


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> _Ray:
    package = _Ray()
    monkeypatch.setattr(ray_launcher, "required", lambda name, extra: package)
    return package


def test_each_run_is_a_task_with_what_it_needs(toys: Toys, fake: _Ray, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = some(toys.elsewhere("alone"))
    launch(alone, {"name": "serial"})
    configs = some(toys)
    settings = {"name": "ray", "address": "head:6379", "jobs": 2, "cpus": 2, "gpus": 0.5, "memory_gb": 1.5}
    assert launch(configs, settings) == []
    assert metrics(configs) == metrics(alone) and None not in metrics(alone)
    assert (fake.asked["address"], fake.asked["num_cpus"], fake.asked["num_gpus"]) == ("head:6379", 2, 0.5)
    assert fake.asked["memory"] == 3 * 2**29
    paths = fake.asked["runtime_env"]["env_vars"]["PYTHONPATH"].split(os.pathsep)
    assert paths[0] == str(Path(ray_launcher.__file__).parents[2])
    assert fake.under_way_at_most == 2 and fake.shut_down


def test_a_task_that_dies_is_given_out_again_and_given_up_in_the_end(toys: Toys, fake: _Ray) -> None:
    fake.deaths = {0: 2, 1: 9}
    configs = some(toys)
    problems = launch(configs, {"name": "ray"})
    assert [(problem.name, problem.status, problem.reason) for problem in problems] == [
        ("toy toy_mlp dfa seed 1", "failed", "its Ray task (_NodeDied) died 3 times (out of memory?)")
    ]
    assert [(RunFolder.of(config).read() or {})["status"] for config in configs] == ["done", "failed", "done"]


def test_a_task_that_is_asked_to_stop_goes_on_later(
    toys: Toys, fake: _Ray, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TOY_FAULT", "SIGTERM@9")
    monkeypatch.setenv("TOY_FAULT_SEED", "1")
    monkeypatch.setenv("TOY_FAULT_ONCE", str(tmp_path / "stopped"))
    configs = some(toys)
    assert launch(configs, {"name": "ray"}) == []
    assert (tmp_path / "stopped").exists() and None not in metrics(configs)


def test_an_interrupted_driver_cancels_its_tasks(toys: Toys, fake: _Ray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake, "get", lambda reference: os.kill(os.getpid(), signal.SIGTERM))
    with handle_signals(), pytest.raises(Interrupted):
        launch(some(toys), {"name": "ray"})
    assert len(fake.cancelled) == 2 and fake.shut_down


def test_no_cluster_is_one_line(toys: Toys, fake: _Ray, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**options: Any) -> None:
        raise ConnectionError("Could not find any running Ray instance.\nPlease start one.")

    monkeypatch.setattr(fake, "init", refuse)
    with pytest.raises(
        ConfigError, match=r"^no Ray cluster at 'auto': Could not find any running Ray instance\. Please"
    ):
        launch(some(toys), {"name": "ray"})
    with pytest.raises(ConfigError, match=r"launcher\.jobs must be at least 1, got 0"):
        make_launcher({"name": "ray", "jobs": 0})


@pytest.mark.parametrize(
    "option", [{"cpus": -1}, {"gpus": -0.5}, {"gpus": float("nan")}, {"memory_gb": -8.0}, {"memory_gb": 0.0}]
)
def test_amounts_that_cannot_be_are_refused(fake: _Ray, option: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=rf"launcher\.{next(iter(option))} must be (positive and )?finite"):
        make_launcher({"name": "ray", **option})


def test_ray_itself_on_two_nodes_one_of_which_dies_equals_serial(toys: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="needs the extra 'ray', which is not installed")
    from ray.cluster_utils import Cluster

    alone = _long(toys.elsewhere("alone"))
    launch(alone, {"name": "serial"})
    configs = _long(toys)
    monkeypatch.setenv("TOY_PAUSE", "0.1")
    deaths: list[str] = []
    genuine = Deaths.give_up

    def give_up(self: Deaths, config: Config, what: str) -> Outcome | None:
        deaths.append(what)
        return genuine(self, config, what)

    monkeypatch.setattr(Deaths, "give_up", give_up)
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    second = nodes.add_node(num_cpus=1)

    def kill_a_node() -> None:
        wait_until(lambda: sum(RunFolder.of(config).has_checkpoint for config in configs) == 2)
        nodes.remove_node(second, allow_graceful=False)

    killer = threading.Thread(target=kill_a_node)
    killer.start()
    try:
        assert launch(configs, {"name": "ray", "address": nodes.address}) == []
    finally:
        killer.join()
        nodes.shutdown()
    assert len(deaths) == 1 and metrics(configs) == metrics(alone)


def _long(toys: Toys) -> list[Config]:
    return [toys.config("trainer.epochs=8", f"seed={seed}", "run.checkpoint_seconds=0") for seed in range(3)]
