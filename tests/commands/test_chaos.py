"""Processes of a sweep are killed at random moments; what is left equals what an undisturbed sweep leaves."""

import json
import os
import random
import sys
from pathlib import Path

import pytest

from benchmarks.commands import reproduce
from benchmarks.commands.chaos import main
from benchmarks.errors import ResultsError
from benchmarks.launchers.chaos import differences, disturb
from benchmarks.launchers.damage import damage_a_history
from benchmarks.run.records import RunFolder
from benchmarks.tables import targets
from benchmarks.utils.paths import REPOSITORY
from tests.commands.test_reproduce import toy_table
from tests.conftest import TOY, Command, Toys
from tests.run.test_execute import _leave_at

# The driver has the toy for its table; workers need its file only.
_SWEEP = (
    "import sys; from tests import conftest; from tests.commands import test_reproduce as t\n"
    "from benchmarks.commands import reproduce; from benchmarks.tables import targets\n"
    "if __name__ == '__main__':\n"
    "    store = conftest.ConfigStore.instance().store\n"
    "    [store(group=g, name=n, node=node) for (g, n), node in conftest._CHOICES.items()]\n"
    "    targets.load_spec = lambda name, **options: t.toy_table(epochs=8)\n"
    "    reproduce.main(sys.argv[1:])\n"
)
_KILLS = 3


def _sweep(script: Path, results: Path) -> list[str]:
    settings = [f"plugins=[{TOY}]", "run.wandb=disabled", "run.checkpoint_seconds=0"]
    arguments = ["table_3", "--scale", "mini", "--seeds", "4", "--jobs", "2", "--results", str(results)]
    return [sys.executable, str(script), *arguments, *(word for setting in settings for word in ("--set", setting))]


def test_a_sweep_that_is_killed_again_and_again_ends_as_if_it_had_not_been(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "sweep.py"
    script.write_text(_SWEEP)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (REPOSITORY,)))}
    calm, chaotic = tmp_path / "calm", tmp_path / "chaotic"
    monkeypatch.setattr(targets, "load_spec", lambda name, **options: toy_table(epochs=8))
    assert command(reproduce.main, *_sweep(script, calm)[2:], "--jobs", "1")[0] == 0
    done = disturb(
        _sweep(script, chaotic),
        chaotic,
        _KILLS,
        (0.3, 1.5),
        random.Random(3),
        {**environment, "TOY_PAUSE": "0.04"},
        damage=True,
    )
    assert len(done.killed) == _KILLS and set(done.killed) == {"driver", "worker"}
    assert done.drivers == 1 + done.killed.count("driver")
    assert differences(calm, chaotic) == []
    assert (done.rewritten, done.orphans) == ([], 0)
    assert len(list(chaotic.rglob("result.json"))) == 8


def test_differences_are_seen(toys: Toys) -> None:
    one, other = toys.elsewhere("one"), toys.elsewhere("other")
    for place in (one, other):
        _, folder = place.run()
        (place.results / "tables").mkdir()
        (place.results / "tables" / "t.md").write_text("| 1.0 |\n\ntook 3 s\n")
    assert differences(one.results, other.results) == []
    (other.results / "tables" / "t.md").write_text("| 1.1 |\n\ntook 3 s\n")
    record = json.loads(folder.result.read_text())
    record["metrics"]["test/accuracy"] += 1e-12
    folder.result.write_text(json.dumps(record))
    folder.metrics.write_text(folder.metrics.read_text().replace("0", "1", 1))
    name = str(folder.path.relative_to(other.results))
    assert differences(one.results, other.results) == [f"{name}: record", f"{name}: metrics.jsonl", "t.md: rows"]
    folder.result.unlink()
    assert differences(one.results, other.results)[0] == f"{name}: record"


def test_a_record_that_is_written_again_is_seen_and_so_is_a_sweep_that_fails(tmp_path: Path) -> None:
    folder = tmp_path / "runs/a/b/c/d"
    folder.mkdir(parents=True)
    code = "import pathlib, sys, time; p = pathlib.Path(sys.argv[1]) / 'result.json'\n"
    code += "for text in '12': (q := p.with_suffix('.tmp')).write_text(text); q.replace(p); time.sleep(0.3)"
    done = disturb([sys.executable, "-c", code, str(folder)], tmp_path, 0, (0, 0), random.Random())
    assert done.rewritten == [folder / "result.json"]
    with pytest.raises(ResultsError, match="ended with code 3"):
        disturb([sys.executable, "-c", "exit(3)"], tmp_path, 0, (0, 0), random.Random())


def test_a_sweep_that_cannot_be_run_is_told_in_one_line(command: Command) -> None:
    code, _, err = command(main, "--table", "nope")
    assert code == 2 and err.count("\n") == 1
    assert err.startswith("error: the sweep ended with code 2: unknown table or figure 'nope'; known: table_1")


def test_only_histories_of_runs_that_can_go_on_are_damaged(toys: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["trainer.epochs=3", "run.checkpoint_seconds=0"]
    toys.run("seed=0", *options)
    assert damage_a_history(toys.results, random.Random(0)) is None
    _leave_at(monkeypatch, toys.config("seed=1", *options), 12)
    begun = RunFolder.of(toys.config("seed=1", *options))
    before = begun.metrics.read_bytes()
    with begun.locked():
        assert damage_a_history(toys.results, random.Random(0)) is None
    assert damage_a_history(toys.results, random.Random(0)) == begun.metrics
    assert not begun.metrics.exists() or begun.metrics.read_bytes() != before
