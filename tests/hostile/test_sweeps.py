"""Sweeps that are invalid as a whole: refused in one line before the first run."""

import shlex

import pytest

from benchmarks.commands import train
from benchmarks.run.records import RunFolder
from tests.conftest import Command, Toys
from tests.hostile.cases import Row, assert_refused, carried_out

SWEEPS: list[Row] = [
    ("seed=range(0,3,0)", r"cannot read 'seed=range\(0,3,0\)': .*must not be zero"),
    ("seed=range(3,0)", r"'seed=range\(3,0\)' gives no runs"),
    ("rule=bp,dfa seed=range(0,3,-1)", r"'seed=range\(0,3,-1\)' gives no runs"),
    ("seed=shuffle(range(3,0))", "gives no runs"),
    ("seed=glob(*)", r"'seed=glob\(\*\)' gives no runs"),
    ("optimizer.lr=range(0.1,nan)", r"cannot read 'optimizer.lr=range\(0.1,nan\)': not a number"),
    ("optimizer.lr=range(0.1,inf)", "gives more than 100000 values"),
    ("optimizer.lr=shuffle(range(0.1,inf))", "gives more than 100000 values"),
    ("seed=range(0,99999999999)", "gives more than 100000 values"),
    ("seed=0,-1", "seed must be from 0 to 2"),
    ("seed=-1,0,1", "seed must be from 0 to 2"),
    ("seed=0,1 optimizer.lr=0.01,nan", "optimizer.lr must be positive and finite, got nan"),
    ("seed=0,x", "could not be converted to Integer"),
    ("scale=paper,huge", "unknown scale 'huge'"),
]


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("words", "message"), SWEEPS, ids=[words for words, _ in SWEEPS])
def test_a_sweep_that_cannot_be_meant_is_refused(toys: Toys, command: Command, words: str, message: str) -> None:
    toys.results.mkdir()
    given = ["-m", *toys.overrides, "launcher=serial", "trainer.epochs=1", *shlex.split(words)]
    outcome = carried_out(command, train.main, given, toys.results)
    assert_refused(outcome, message)
    assert not list(toys.results.rglob("result.json")) and outcome.out == ""


LAUNCHERS: list[Row] = [
    ("launcher=local launcher.jobs=0", "launcher.jobs must be at least 1, got 0"),
    ("launcher=local launcher.jobs=-1", "launcher.jobs must be at least 1, got -1"),
    ("launcher=local launcher.jobs=x", "jobs"),
    ("launcher=local launcher.jobs=1.5", "jobs"),
    ("launcher=slurm launcher.minutes=0", "launcher"),
    ("launcher=slurm launcher.minutes=nan", "launcher"),
    ("launcher=slurm launcher.cpus=0", "launcher"),
    ("launcher=slurm launcher.cluster=nowhere", "launcher"),
    ("launcher.name=nowhere", "unknown launcher 'nowhere'"),
]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("sweep", [[], ["-m", "seed=0,1"]])
@pytest.mark.parametrize(("words", "message"), LAUNCHERS, ids=[words for words, _ in LAUNCHERS])
def test_a_launcher_that_cannot_be_meant_is_refused_before_recorded_runs_are_shown(
    toys: Toys, command: Command, words: str, message: str, sweep: list[str]
) -> None:
    assert command(train.main, *toys.overrides)[0] == 0 and RunFolder.of(toys.config()).result.exists()
    outcome = carried_out(command, train.main, [*sweep, *toys.overrides, *shlex.split(words)], toys.results)
    assert_refused(outcome, message)
    assert outcome.out == ""
