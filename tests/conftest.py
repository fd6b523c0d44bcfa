"""The toy task, as a choice of the configuration; nothing in the tests reaches the network or W&B's servers."""

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

# Tests run side by side, in processes that would otherwise all ask for every core; theirs inherit it. Before torch.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from hydra.core.config_store import ConfigStore

from benchmarks.config import Config, compose_config, resolve
from benchmarks.run.execute import execute
from benchmarks.run.record_schema import Record
from benchmarks.run.records import RunFolder
from benchmarks.tables import composed
from benchmarks.tables.spec import TableSpec, load_spec
from benchmarks.utils.paths import REPOSITORY

TOY = REPOSITORY / "tests" / "helpers" / "toy.py"
RAISED_AT = 1 + TOY.read_text().splitlines().index('        raise ZeroDivisionError("the toy is broken")')
"""The line of the toy that a fault of kind "raise" strikes at."""

_CHOICES: dict[tuple[str, str], dict[str, Any]] = {
    ("task", "toy"): {"name": "toy", "family": None, "source": "stand_in", "options": {"batch_size": 12}},
    ("task", "toy_loss"): {"name": "toy_loss", "family": None, "source": "stand_in"},
    ("model", "toy_mlp"): {"name": "toy_mlp", "points": ["blocks.*.act"], "options": {"hidden": 16}},
    ("model", "toy_wide"): {"name": "toy_mlp", "points": ["blocks.0.act"], "options": {"hidden": 24}},
    ("rule", "toy_opposite"): {"name": "toy_opposite", "options": {}},
}


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for variable in ("DFA_RESULTS_DIR", "DFA_WANDB", "TOY_FAULT", "TOY_FAULT_SEED", "TOY_FAULT_ONCE", "TOY_PAUSE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("DFA_CONFIG_DIR", "")  # so that what a command adds is taken back
    # A test outlives no power cut, and flushing the files of a tiny run to disk takes longer than the run.
    monkeypatch.setattr(os, "fsync", lambda _: None)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session", autouse=True)
def _composed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What tables compose to is kept for the tests that follow, of all workers, and away from the user's cache."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "cache"
    with patch.object(composed, "cache_dir", lambda: folder):
        yield folder


@pytest.fixture(scope="session", autouse=True)
def _toy_choices() -> None:
    for (group, name), node in _CHOICES.items():
        ConfigStore.instance().store(group=group, name=name, node=node)


@dataclass
class Toys:
    """Makes and runs toy configurations with results in one folder."""

    results: Path

    @property
    def overrides(self) -> list[str]:
        """What every toy run has in common."""
        return [
            "task=toy",
            "model=toy_mlp",
            "rule=bp",
            f"plugins=[{TOY}]",
            "trainer.epochs=3",
            f"run.results_dir={self.results}",
            "run.wandb=disabled",
        ]

    def config(self, *overrides: str) -> Config:
        return resolve(compose_config([*self.overrides, *overrides]))

    def run(self, *overrides: str) -> tuple[Record, RunFolder]:
        config = self.config(*overrides)
        return execute(config), RunFolder.of(config)

    def elsewhere(self, name: str) -> "Toys":
        """The same with results in another folder."""
        return Toys(self.results.parent / name)

    def files(self) -> list[str]:
        """Every file below the results."""
        return sorted(str(path.relative_to(self.results)) for path in self.results.rglob("*") if path.is_file())


@pytest.fixture
def toys(tmp_path: Path) -> Toys:
    return Toys(tmp_path / "results")


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Call an entry point with arguments; returns exit code, stdout and stderr."""

    def call(main: Callable[[], None], *arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["command", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return call


@pytest.fixture
def spec() -> TableSpec:
    """Table 3, which has all that a table can have."""
    return load_spec("table_3")
