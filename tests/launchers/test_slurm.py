"""Slurm: what submitit is asked for, how jobs end, and, where they are installed, submitit and Slurm themselves."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from benchmarks.commands import reproduce
from benchmarks.config import Config, to_dict
from benchmarks.errors import ConfigError
from benchmarks.launchers import launch, make_launcher, slurm
from benchmarks.launchers.slurm import Job, Slurm
from benchmarks.run.records import RunFolder
from benchmarks.utils.signals import Interrupted, handle_signals
from tests.conftest import Command, Toys
from tests.launchers.test_launchers import metrics, some, wait_until

SETTINGS = {"name": "slurm", "cluster": "local", "minutes": 5}


@dataclass(eq=False)
class _Job:
    """Stands for a job of submitit that is over."""

    folder: Path
    outcome: Any = None
    error: str = ""
    state: str = "COMPLETED"
    job_id: str = "7_0"
    cancelled: bool = False

    @property
    def paths(self) -> SimpleNamespace:
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.outcome is not None or self.error:
            (self.folder / "result.pkl").touch()
        return SimpleNamespace(result_pickle=self.folder / "result.pkl")

    def done(self) -> bool:
        return True

    def exception(self) -> Exception | None:
        return RuntimeError(self.error) if self.error else None

    def result(self) -> Any:
        return self.outcome

    def cancel(self) -> None:
        self.cancelled = True


@dataclass
class _Submitit:
    """Stands for the package; carries jobs out at once, or ends them as told."""

    folder: Path
    ends: dict[int, dict[str, Any]] = field(default_factory=dict)
    asked: dict[str, Any] = field(default_factory=dict)
    path: str = ""
    core: Any = field(default_factory=lambda: SimpleNamespace(utils=SimpleNamespace(FailedJobError=KeyError)))

    def AutoExecutor(self, folder: Path, **options: Any) -> "_Submitit":
        self.asked = {"folder": str(folder), **options}
        return self

    def update_parameters(self, **parameters: Any) -> None:
        self.asked |= parameters

    def map_array(self, function: Callable[..., Any], contents: Sequence[dict[str, Any]]) -> list[_Job]:
        self.path = os.environ.get("PYTHONPATH", "")
        jobs = []
        for place, content in enumerate(contents):
            end = self.ends[place] if place in self.ends else {"outcome": function(content)}
            jobs.append(_Job(self.folder / f"job{place}", **end))
        return jobs


@pytest.fixture
def submitit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> _Submitit:
    fake = _Submitit(tmp_path / "jobs")
    monkeypatch.setattr(slurm, "required", lambda package, extra: fake)
    monkeypatch.setattr(slurm, "which", lambda program: f"/usr/bin/{program}")
    return fake


def test_a_machine_without_slurm_is_told_before_anything_is_planned(
    toys: Toys, submitit: _Submitit, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slurm, "which", lambda program: None)
    code, out, err = command(reproduce.main, "table_a1", "--launcher", "slurm", "--dry")
    assert (code, out) == (2, "")
    assert err == "error: launcher 'slurm' needs Slurm's `srun`, which this machine does not have\n"
    assert make_launcher(SETTINGS).width("cpu") == 16, "submitit's own jobs need no Slurm"


def test_an_array_is_asked_for_and_its_results_are_the_runs(toys: Toys, submitit: _Submitit) -> None:
    alone = some(toys.elsewhere("alone"))
    launch(alone, {"name": "serial"})
    together = some(toys)
    options = {"jobs": 4, "partition": "long", "minutes": 90, "cpus": 2, "gpus": 1, "memory_gb": 8.0, "requeues": 2}
    assert launch(together, {"name": "slurm", **options}) == []
    assert metrics(together) == metrics(alone) and None not in metrics(alone)
    assert submitit.asked == {
        "folder": str(toys.results / "runs" / ".slurm" / "%j"),
        "cluster": "slurm",
        "slurm_max_num_timeout": 2,
        "name": "dfa",
        "timeout_min": 90,
        "cpus_per_task": 2,
        "gpus_per_node": 1,
        "mem_gb": 8.0,
        "slurm_partition": "long",
        "slurm_array_parallelism": 4,
        "slurm_additional_parameters": {"requeue": True},
    }
    assert submitit.path.split(os.pathsep)[0] == str(Path(slurm.__file__).parents[2])
    assert submitit.path != os.environ.get("PYTHONPATH")


def test_jobs_that_end_before_their_runs(toys: Toys, submitit: _Submitit) -> None:
    configs = some(toys)
    too_often = (
        "Job failed:\nsubmitit.core.utils.UncompletedJobError: Job not requeued because: timed-out too often.\n---"
    )
    submitit.ends = {0: {"state": "OUT_OF_MEMORY"}, 1: {"state": "CANCELLED by 0"}, 2: {"error": too_often}}
    problems = launch(configs, {"name": "slurm"})
    assert [(problem.status, problem.reason) for problem in problems] == [
        ("failed", "Slurm job 7_0 ended before it: OUT_OF_MEMORY (out of memory?)"),
        ("interrupted", "Slurm job 7_0 ended before it: CANCELLED"),
        ("interrupted", "Job not requeued because: timed-out too often."),
    ]
    assert [(RunFolder.of(config).read() or {}).get("status") for config in configs] == ["failed", None, None]


def test_an_interrupted_driver_cancels_its_jobs(
    toys: Toys, submitit: _Submitit, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [_Job(submitit.folder / str(place)) for place in range(2)]
    monkeypatch.setattr(_Job, "done", lambda job: os.kill(os.getpid(), signal.SIGTERM))
    monkeypatch.setattr(Slurm, "_submit", lambda self, configs: jobs)
    with handle_signals(), pytest.raises(Interrupted):
        launch(some(toys)[:2], {"name": "slurm"})
    assert [job.cancelled for job in jobs] == [True, True]


@pytest.mark.parametrize(
    ("faults", "requeued"), [(["SIGUSR2"], True), (["SIGTERM"], False), (["SIGTERM", "SIGUSR2"], True)]
)
def test_a_job_hands_on_to_submitit_from_a_clean_state(
    toys: Toys, monkeypatch: pytest.MonkeyPatch, faults: list[str], requeued: bool
) -> None:
    config = toys.config("trainer.epochs=4")
    folder = RunFolder.of(config)
    seen: list[tuple[int, bool, bool]] = []

    def requeue(number: int, frame: object) -> None:  # what submitit installs
        seen.append((number, folder.has_checkpoint, folder.is_held()))
        sys.exit(-1)

    before = {number: signal.signal(number, requeue) for number in (signal.SIGUSR2, signal.SIGUSR1)}
    before[signal.SIGTERM] = signal.signal(signal.SIGTERM, lambda number, frame: None)
    waited: list[float] = []
    monkeypatch.setattr(slurm.time, "sleep", waited.append)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    try:
        monkeypatch.setenv("TOY_FAULT", f"{'+'.join(faults)}@7")
        with pytest.raises(SystemExit) as ended:
            Job()(to_dict(config))
        assert signal.getsignal(signal.SIGUSR2) is requeue
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert ended.value.code == (-1 if requeued else 143)
    assert requeued or waited[-1] == 600.0, "Slurm requeues only what is still there when it ends it"
    assert seen == ([(signal.SIGUSR2, True, False)] if requeued else [])
    state = folder.load_checkpoint()
    assert state is not None and state["position"]["step"] == 7


def test_a_cluster_that_refuses_is_one_line(toys: Toys, submitit: _Submitit, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise RuntimeError('Could not detect "srun",\n are you indeed on a slurm cluster?')

    monkeypatch.setattr(_Submitit, "AutoExecutor", refuse)
    with pytest.raises(ConfigError, match=r'^Slurm does not take the jobs: Could not detect "srun", are you'):
        launch(some(toys), {"name": "slurm"})
    with pytest.raises(ConfigError, match=r"launcher\.minutes must be at least 1, got 0"):
        make_launcher({"name": "slurm", "minutes": 0})


@pytest.mark.parametrize("option", [{"gpus": -1}, {"requeues": -3}, {"memory_gb": -8.0}, {"memory_gb": 0.0}])
def test_amounts_that_cannot_be_are_refused(submitit: _Submitit, option: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=rf"launcher\.{next(iter(option))} must be (positive and )?finite"):
        make_launcher({"name": "slurm", **option})


def test_submitit_itself_preempts_and_requeues_a_job(toys: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its jobs on this machine: processes, pickles, signals and requeueing are those that Slurm's jobs have."""
    pytest.importorskip("submitit", reason="needs the extra 'slurm': submitit is not installed")
    alone = _long(toys.elsewhere("alone"))
    launch(alone, {"name": "serial"})
    configs = _long(toys)
    monkeypatch.setenv("TOY_PAUSE", "0.1")
    launcher = make_launcher(SETTINGS)
    assert isinstance(launcher, Slurm)
    jobs = launcher._submit(configs)
    wait_until(lambda: RunFolder.of(configs[0]).has_checkpoint)
    (job,) = psutil.Process(int(jobs[0].job_id)).children()
    for number in (signal.SIGTERM, signal.SIGUSR2):  # as where a cluster preempts
        job.send_signal(number)
    assert [job.result()["status"] for job in jobs] == ["done", "done"]
    assert "Requeued job" in jobs[0].stderr() + jobs[0].stdout()
    assert metrics(configs) == metrics(alone)
    assert [len(RunFolder.of(config).history()) for config in configs] == [8, 8]


def _long(toys: Toys) -> list[Config]:
    return [toys.config("trainer.epochs=8", f"seed={seed}", "run.checkpoint_seconds=0") for seed in range(2)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A Slurm of one node."""
    pytest.importorskip("submitit", reason="needs the extra 'slurm': submitit is not installed")
    if not (shutil.which("sbatch") and shutil.which("munged", path=os.environ["PATH"] + ":/usr/sbin")):
        pytest.skip("needs Debian's packages slurm-wlm and munge")
    script = Path(slurm.__file__).parents[2] / "scripts" / "local_slurm.sh"
    started = subprocess.run([script, "start"], capture_output=True, text=True, timeout=120)
    if started.returncode:
        pytest.skip(f"Slurm does not start here: {started.stderr.strip().splitlines()[-1]}")
    before = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = started.stdout.strip().split("=", 1)[1]
    yield
    os.environ.pop("SLURM_CONF") if before is None else os.environ.update(SLURM_CONF=before)
    subprocess.run([script, "stop"], timeout=60)


@pytest.mark.usefixtures("cluster")
def test_slurm_itself_requeues_a_job_and_the_runs_are_the_serial_ones(
    toys: Toys, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = _long(toys.elsewhere("alone"))
    launch(alone, {"name": "serial"})
    configs = _long(toys)
    monkeypatch.setenv("TOY_PAUSE", "0.1")
    launcher = make_launcher({"name": "slurm", "minutes": 5})
    assert isinstance(launcher, Slurm)
    jobs = launcher._submit(configs)
    wait_until(lambda: RunFolder.of(configs[0]).has_checkpoint)
    name = jobs[0].job_id
    subprocess.run(["scontrol", "requeue", name], check=True)
    ask = ["squeue", "--noheader", "--jobs", name, "--format=%T"]
    wait_until(lambda: subprocess.run(ask, capture_output=True, text=True).stdout.strip() == "PENDING")
    # Slurm would hold it back for two minutes.
    subprocess.run(["scontrol", "update", f"JobId={name}", "StartTime=now"], check=True)
    assert [job.result()["status"] for job in jobs] == ["done", "done"]
    assert metrics(configs) == metrics(alone)


def test_a_job_that_slurm_does_not_know_twice_is_lost(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class SlurmJob(_Job):
        pass

    now = [0.0]
    monkeypatch.setattr(slurm.time, "monotonic", lambda: now[0])
    answers: list[set[str] | None] = [{"7_0", "7_1"}, {"7_1"}, None, {"7_1"}, {"7_1"}]
    monkeypatch.setattr(slurm, "_queued", lambda: answers.pop(0))
    queue, jobs = slurm._Queue(), [SlurmJob(tmp_path / str(place), job_id=f"7_{place}") for place in range(3)]
    found = []
    while answers:
        now[0] += 21.0
        found.append([queue.is_over(job) for job in jobs[:2]])
    assert found == [[False, False]] * 4 + [[True, False]]
    jobs[2].outcome = {}
    assert queue.is_over(jobs[2])
