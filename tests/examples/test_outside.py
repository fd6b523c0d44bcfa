"""The example of a task, model, rule and table from outside the repository, made as its README says."""

import csv
import shutil
from pathlib import Path

import pytest

from benchmarks.commands import reproduce, search, status, train, tune
from benchmarks.utils.paths import CONFIG_DIR, REPOSITORY
from tests.conftest import Command

FOLDER = REPOSITORY / "examples" / "outside"


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(REPOSITORY)
    monkeypatch.setenv("DFA_WANDB", "disabled")
    monkeypatch.setenv("DFA_RESULTS_DIR", str(tmp_path))


def test_one_command_makes_the_table(command: Command, tmp_path: Path) -> None:
    arguments = ["table_digits", "--config-dir", str(FOLDER), "--scale", "smoke"]
    code, out, err = command(reproduce.main, *arguments, "--jobs", "1")
    assert code == 0, err
    with (tmp_path / "tables" / "table_digits.csv").open() as file:
        found = {row["row"]: (float(row["mean"]), row["data"]) for row in csv.DictReader(file)}
    assert set(found) == {"bp", "dfa", "sparse_dfa", "shallow"}
    assert {data for _, data in found.values()} == {"real"}  # the smoke scale leaves tasks without a stand-in alone
    # Ten classes: guessing gives 10 %; a frozen tower is behind every rule that trains it.
    assert found["bp"][0] > 90 and found["shallow"][0] < min(found[rule][0] for rule in ("bp", "dfa", "sparse_dfa"))
    code, out, _ = command(status.main, "table_digits", "--config-dir", str(FOLDER), "--scale", "smoke")
    assert code == 0 and "table_digits" in out


def test_a_table_keeps_its_place_against_one_with_fewer_results(command: Command, tmp_path: Path) -> None:
    arguments = ["table_digits", "--config-dir", str(FOLDER), "--scale", "smoke", "--set", "trainer.epochs=1"]
    assert command(reproduce.main, *arguments, "--jobs", "1")[0] == 0
    before = (tmp_path / "tables" / "table_digits.csv").read_bytes()
    shutil.rmtree(tmp_path / "runs")
    poor = ["--set", "optimizer.lr=1e38"]  # diverges
    code, _, err = command(reproduce.main, *arguments, *poor, "--jobs", "1")
    assert code == 2 and "would have 0 results" in err and "--force" in err
    assert (tmp_path / "tables" / "table_digits.csv").read_bytes() == before
    code, _, _ = command(reproduce.main, *arguments, *poor, "--jobs", "1", "--force")
    assert code == 1 and (tmp_path / "tables" / "table_digits.csv").read_bytes() != before


def test_a_single_run(command: Command) -> None:
    parts = [
        "task=digits",
        "model=digit_mlp",
        "rule=sparse_dfa",
        f"plugins=[{FOLDER / 'parts.py'}]",
        "trainer.epochs=1",
    ]
    code, out, err = command(train.main, "--config-dir", str(FOLDER), *parts)
    assert code == 0 and "digits digit_mlp sparse_dfa" in out, err


@pytest.mark.parametrize("main", [reproduce.main, status.main, tune.main, search.main])
def test_a_folder_that_is_not_there_is_one_clear_error(main: object, command: Command) -> None:
    code, _, err = command(main, "table_digits", "--config-dir", "no/such/folder")
    assert code == 2 and "there is no folder 'no/such/folder'" in err


def test_a_file_with_the_name_of_one_of_the_suite_is_refused(command: Command, tmp_path: Path) -> None:
    (tmp_path / "task").mkdir()
    shutil.copy(CONFIG_DIR / "task" / "cora.yaml", tmp_path / "task")
    code, _, err = command(train.main, "--config-dir", str(tmp_path), "task=cora")
    assert code == 2 and "rename it" in err and err.count("\n") == 1
