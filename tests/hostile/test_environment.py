"""Environment variables that are invalid: one line, exit code 2, nothing written."""

import shlex
from importlib import import_module
from pathlib import Path

import pytest

from tests.conftest import Command, Toys
from tests.hostile.cases import assert_refused, carried_out

_TRAIN = "train task=cora model=gcn scale=smoke trainer.epochs=1 task.source=stand_in"

CASES: list[tuple[str, str, str, str]] = [
    *[
        ("DFA_RESULTS_DIR", "${seed}", line, r"run.results_dir must name a folder, got '\$\{seed\}'")
        for line in (
            _TRAIN,
            _TRAIN.replace("train", "train -m launcher=serial", 1),
            "rank task=cora model=gcn rule=dfa",
        )
    ],
    ("DFA_DATA_DIR", "${seed}", _TRAIN, r"run.data_dir must name a folder, got '\$\{seed\}'"),
    ("DFA_RESULTS_DIR", "d" * 300, _TRAIN, "run.results_dir is too long a path"),
    *[
        ("DFA_CONFIG_DIR", "/nowhere/at/all", line, "error: DFA_CONFIG_DIR: there is no folder '/nowhere/at/all'\n")
        for line in (
            _TRAIN,
            "status",
            "reproduce table_3 --dry",
            "rank task=cora",
            "search graphs task=cora",
            "fetch cora",
            "tune table_6 --dry",
            "bench models --models gcn --parts steps",
            "sample .",
            "records verify table_3",
        )
    ],
    ("DFA_CONFIG_DIR", __file__, _TRAIN, "DFA_CONFIG_DIR: there is no folder"),
    ("DFA_CONFIG_DIR", "/tmp:/nowhere/at/all", "status", "DFA_CONFIG_DIR: there is no folder '/nowhere/at/all'"),
]


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("variable", "value", "line", "message"),
    CASES,
    ids=[f"{name}={value[:20]} {line}" for name, value, line, _ in CASES],
)
def test_a_variable_that_cannot_be_meant_is_refused(
    command: Command, monkeypatch: pytest.MonkeyPatch, toys: Toys, variable: str, value: str, line: str, message: str
) -> None:
    here = toys.results.parent
    monkeypatch.chdir(here)
    monkeypatch.setenv("DFA_OFFLINE", "1")
    monkeypatch.setenv("DFA_RESULTS_DIR", str(here / "results"))
    monkeypatch.setenv(variable, value)
    name, *words = shlex.split(line)
    outcome = carried_out(command, import_module(f"benchmarks.commands.{name}").main, words, here)
    assert_refused(outcome, message)
    assert list(Path(here).iterdir()) == []
