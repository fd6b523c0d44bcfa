"""The example of a task, model, rule and table from outside the repository, made as its README says."""

import csv
import shutil
from pathlib import Path

import pytest

from benchmarks.commands import fetch, rank, reproduce, search, status, train, tune
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
    diverging = ["--set", "optimizer.lr=1e38"]
    code, _, err = command(reproduce.main, *arguments, *diverging, "--jobs", "1")
    assert code == 1 and err.splitlines()[-1].startswith("error: table_digits: 0 results; the table in ")
    assert (tmp_path / "tables" / "table_digits.csv").read_bytes() == before
    assert command(reproduce.main, *arguments, *diverging, "--jobs", "1", "--force")[0] == 1
    assert (tmp_path / "tables" / "table_digits.csv").read_bytes() != before


def test_a_table_without_results_is_written_where_there_is_none(command: Command, tmp_path: Path) -> None:
    arguments = ["table_digits", "--config-dir", str(FOLDER), "--scale", "smoke", "--set", "optimizer.lr=1e38"]
    assert command(reproduce.main, *arguments, "--jobs", "1")[0] == 1
    assert "diverged" in (tmp_path / "tables" / "table_digits.md").read_text()


def test_single_runs_in_worker_processes(command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)  # the folder is found from anywhere
    arguments = ["task=digits", "model=digit_mlp", "rule=sparse_dfa", "trainer.epochs=1", "seed=0,1", "launcher.jobs=2"]
    code, out, err = command(train.main, "-m", "--config-dir", str(FOLDER), *arguments)
    assert code == 0 and out.count("digits digit_mlp sparse_dfa") >= 2, err
    code, out, err = command(rank.main, "--config-dir", str(FOLDER), *arguments[:3])
    assert code == 0 and "valid accuracy" in out, err


def test_a_figure_of_the_users_own(command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    shutil.copytree(FOLDER, folder)
    (folder / "figure").mkdir()
    (folder / "figure" / "figure_digits.yaml").write_text(
        "title: Digits\ndraw: digit_bars\npanels: {ours: [task=digits, model=digit_mlp, rule=sparse_dfa]}\n"
        "cost_seconds: {paper: 1, mini: 1, smoke: 1}\n"
    )
    (folder / "figures.py").write_text(
        "from matplotlib.figure import Figure\nfrom benchmarks.registry import FIGURES\n"
        "FIGURES.register('digit_bars')(lambda runs: Figure())\n"
    )
    (folder / "plugins.yaml").write_text(f"- {FOLDER / 'parts.py'}\n- figures.py\n")
    arguments = ["figure_digits", "--config-dir", str(folder), "--scale", "smoke", "--set", "trainer.epochs=1"]
    code, _, err = command(reproduce.main, *arguments, "--jobs", "1")
    assert code == 0 and (tmp_path / "figures" / "figure_digits.png").exists(), err


def test_a_task_of_ones_own_may_use_a_family(command: Command, tmp_path: Path) -> None:
    """The family knows nothing of the task's data, so it runs as it is configured, at every scale."""
    pytest.importorskip("torch_geometric")
    folder = tmp_path / "own"
    shutil.copytree(FOLDER, folder)
    with (folder / "task" / "digits.yaml").open("a") as file:
        file.write("family: graphs\n")
    (folder / "plugins.yaml").write_text(f"- {FOLDER / 'parts.py'}\n")
    for scale in ("smoke", "mini"):
        arguments = ["table_digits", "--config-dir", str(folder), "--scale", scale, "--seeds", "1", "--dry"]
        code, out, err = command(reproduce.main, *arguments)
        assert code == 0 and "4 runs to do" in out and "stand-in" not in out, err


def test_plugins_must_be_a_list(command: Command, tmp_path: Path) -> None:
    (tmp_path / "plugins.yaml").write_text("parts: parts.py\n")
    code, _, err = command(train.main, "--config-dir", str(tmp_path), "task=cora")
    assert code == 2 and "must be a list of Python files and modules" in err and err.count("\n") == 1


@pytest.mark.parametrize("main", [reproduce.main, status.main, tune.main, search.main, rank.main, fetch.main])
def test_a_folder_that_is_not_there_is_one_clear_error(main: object, command: Command) -> None:
    code, _, err = command(main, "table_digits", "--config-dir", "no/such/folder")
    assert code == 2 and "there is no folder 'no/such/folder'" in err


def test_a_file_with_the_name_of_one_of_the_suite_is_refused(command: Command, tmp_path: Path) -> None:
    (tmp_path / "task").mkdir()
    shutil.copy(CONFIG_DIR / "task" / "cora.yaml", tmp_path / "task")
    code, _, err = command(train.main, "--config-dir", str(tmp_path), "task=cora")
    assert code == 2 and "rename it" in err and err.count("\n") == 1


def _folder(path: Path) -> Path:
    (path / "rule").mkdir(parents=True)
    (path / "rule" / "own.yaml").write_text("name: bp\noptions: {}\n")
    return path


def test_a_file_with_the_name_of_one_in_another_folder_is_refused(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = _folder(tmp_path / "one"), _folder(tmp_path / "other")
    told = f"'{other}/rule/own.yaml' has the name of a configuration in '{one}'; rename it\n"
    code, _, err = command(train.main, "--config-dir", str(one), "--config-dir", str(other), "rule=own")
    assert (code, err) == (2, f"error: --config-dir: {told}")
    monkeypatch.setenv("DFA_CONFIG_DIR", f"{one}:{one}:{other}")
    assert command(status.main) == (2, "", f"error: DFA_CONFIG_DIR: {told}")


def test_a_folder_of_the_environment_with_a_name_of_the_suite_is_refused(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = _folder(tmp_path / "own")
    (folder / "rule" / "own.yaml").rename(folder / "rule" / "dfa.yaml")
    monkeypatch.setenv("DFA_CONFIG_DIR", str(folder))
    code, _, err = command(train.main, "task=cora", "rule=dfa")
    told = f"DFA_CONFIG_DIR: '{folder}/rule/dfa.yaml' has the name of a configuration of the suite; rename it"
    assert (code, err) == (2, f"error: {told}\n")


@pytest.mark.parametrize("name", ["it's", "a, b=c", "back\\slash", "[1]"])
def test_a_folder_may_have_any_name(command: Command, tmp_path: Path, name: str) -> None:
    folder = str(_folder(tmp_path / name))
    assert command(train.main, "--config-dir", folder, "--config-dir", folder, "rule=own", "--cfg", "job")[0] == 0


@pytest.mark.parametrize("name", ["a:b", "${seed}"])
def test_a_folder_whose_path_cannot_be_handed_on_is_refused(command: Command, tmp_path: Path, name: str) -> None:
    code, _, err = command(train.main, "--config-dir", str(_folder(tmp_path / name)), "rule=own")
    assert code == 2 and "has ':' or '${' in its path; rename it" in err and err.count("\n") == 1
