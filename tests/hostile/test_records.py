"""Damaged records before every command that reads records: named, never trusted, and run again only on request."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.commands import rank, reproduce, train
from benchmarks.run.records import RunFolder
from benchmarks.tables import targets
from benchmarks.tables.status import state_of
from tests.commands.test_reproduce import toy_table
from tests.conftest import TOY, Command, Toys
from tests.hostile.cases import carried_out

Damage = Callable[[Path], object]


def _written(content: bytes) -> Damage:
    return lambda path: path.write_bytes(content)


def _changed(**changes: Any) -> Damage:
    return lambda path: path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _without(name: str) -> Damage:
    return lambda path: path.write_text(
        json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != name})
    )


def _cut(keep: float) -> Damage:
    return lambda path: path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])


def _replaced(make: Damage) -> Damage:
    def damage(path: Path) -> None:
        path.unlink()
        make(path)

    return damage


DAMAGES: dict[str, Damage] = {
    "empty": _written(b""),
    "blank": _written(b" \n"),
    "zeros": _written(b"\0" * 900),
    "binary": _written(bytes(range(256))),
    "latin-1": _written('{"status": "é"}'.encode("latin-1")),
    "utf-16": _written('{"status": "done"}'.encode("utf-16")),
    "a word": _written(b"done"),
    "null": _written(b"null"),
    "a number": _written(b"7"),
    "a list": _written(b'["done"]'),
    "an empty object": _written(b"{}"),
    "half": _cut(0.5),
    "all but the end": _cut(0.99),
    "two records": lambda path: path.write_bytes(2 * path.read_bytes()),
    "deep lists": _written(b"[" * 100_000),
    "deep objects": _written(b'{"a":' * 100_000),
    "many digits": _written(b'{"status": ' + b"9" * 10_000 + b"}"),
    "unknown status": _changed(status="finished"),
    "status of a list": _changed(status=["done"]),
    "status of true": _changed(status=True),
    "failed without a reason": _changed(status="failed"),
    "reason of two lines": _changed(status="failed", reason="one\ntwo"),
    "reason that steers the terminal": _changed(status="failed", reason="\x1b[2J"),
    "endless seconds": _changed(seconds=float("inf")),
    "no number of seconds": _changed(seconds=float("nan")),
    "negative seconds": _changed(seconds=-1.0),
    "huge seconds": _changed(seconds=10**400),
    "seconds in words": _changed(seconds="60"),
    "negative epochs": _changed(epochs=-1),
    "half a step": _changed(steps=2.5),
    "steps of true": _changed(steps=True),
    "no best value": _changed(best_valid=None),
    "best value that is no number": _changed(best_valid=float("nan")),
    "best value in words": _changed(best_valid="0.9"),
    "metrics of a list": _changed(metrics=[0.5]),
    "metrics of null": _changed(metrics=None),
    "metrics in words": _changed(metrics={"test/accuracy": "0.9"}),
    "nested metrics": _changed(metrics={"test": {"accuracy": 0.9}}),
    "data of null": _changed(data=None),
    "data without a kind": _changed(data={"name": "toy"}),
    "notes of a list": _changed(data={"name": "toy", "kind": "real", "checksums": {}, "notes": [1]}),
    "versions of a list": _changed(versions=["2.7"]),
    "uses of a word": _changed(uses="all"),
    "inputs of a list": _changed(inputs=[1, 2]),
    "device of a number": _changed(device=3),
    "higher_is_better in words": _changed(higher_is_better="yes"),
    "half a surrogate pair": _changed(device="\ud800"),
    "another seed": _changed(seed=5),
    "another identity": _changed(config_hash="0" * 12),
    "another identity's shape": _changed(config_hash=7),
    "another rule": _changed(rule="dfa"),
    "another task": _changed(task="../../x"),
    "no seed": _without("seed"),
    "no metrics": _without("metrics"),
    "no data": _without("data"),
    "no device": _without("device"),
    "no scale": _without("scale"),
    "a pipe": _replaced(os.mkfifo),
    "a folder": _replaced(Path.mkdir),
    "a link to nothing that ends": _replaced(lambda path: path.symlink_to("/dev/zero")),
    "a link to itself": _replaced(lambda path: path.symlink_to(path)),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two finished runs."""
    toys = Toys(tmp_path_factory.mktemp("whole") / "results")
    for seed in (0, 1):
        toys.run(f"seed={seed}", "trainer.epochs=1", "scale=mini")
    return toys.results


@pytest.fixture
def damaged(request: pytest.FixtureRequest, whole: Path, toys: Toys) -> RunFolder:
    """The run with seed 0, whose record is damaged."""
    shutil.copytree(whole, toys.results)
    (path,) = toys.results.glob("runs/*/*/*/seed0-*/result.json")
    DAMAGES[request.param](path)
    return RunFolder(path.parent)


_every = pytest.mark.parametrize("damaged", DAMAGES, indirect=True)


@pytest.mark.timeout(60)
@_every
def test_train_names_it_and_runs_it_again_only_on_request(toys: Toys, command: Command, damaged: RunFolder) -> None:
    words = [*toys.overrides, "trainer.epochs=1", "scale=mini"]
    told = carried_out(command, train.main, words, toys.results)
    assert (told.code, told.changed) == (1, [])
    start = f"error: toy toy_mlp bp seed 0: damaged: its record '{damaged.result}' "
    assert told.err.startswith(start) and told.err.count("\n") == 1 and "Traceback" not in told.err
    again = carried_out(command, train.main, [*words, "run.retry=true"], toys.results)
    assert (again.code, again.err) == (0, "") and state_of(damaged) == ("done", "")


@pytest.mark.timeout(60)
@_every
def test_rank_and_status_go_on_without_it(toys: Toys, command: Command, damaged: RunFolder) -> None:
    words = ["task=toy", "model=toy_mlp", "rule=bp", "scale=mini", f"run.results_dir={toys.results}"]
    ranked = carried_out(command, rank.main, words, toys.results)
    assert (ranked.code, ranked.changed) == (0, []) and ranked.out.splitlines()[-1].split()[-2:] == ["1", "0"]
    assert ranked.err.startswith(f"warning: left out: its record '{damaged.result}' ") and ranked.err.count("\n") == 1
    assert state_of(damaged)[0] == "damaged"


@pytest.mark.timeout(120)
@pytest.mark.parametrize("damaged", ["half", "another seed", "endless seconds", "a pipe"], indirect=True)
def test_a_table_is_made_of_the_others(
    toys: Toys, command: Command, damaged: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets, "load_spec", lambda name, **options: toy_table())
    words = ["table_3", "--scale", "mini", "--seeds", "2", "--jobs", "1", "--results", str(toys.results)]
    words += ["--set", f"plugins=[{TOY}]", "--set", "run.wandb=disabled"]
    code, out, err = command(reproduce.main, *words)
    assert code == 1 and err.count("\n") == 1 and f"damaged: its record '{damaged.result}'" in err
    assert "1 of 2 done, 1 damaged" in out and "1 of 2 seeds done; seed 0 damaged" in out
    code, _, err = command(reproduce.main, *words, "--set", "run.retry=true")
    assert (code, err) == (0, "")
