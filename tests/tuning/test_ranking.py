"""The ranking by validation, from records written here."""

import json
from pathlib import Path

import pytest
import yaml

from benchmarks.commands.rank import main
from benchmarks.config import Config, identity_of, to_dict
from benchmarks.errors import ResultsError
from benchmarks.tuning.ranking import rank, show
from tests.conftest import Command, Toys
from tests.helpers.records import whole_record

WANTED = {"task": "cora", "model": "gcn", "rule": "dfa"}


def leave_run(
    results: Path,
    lr: float,
    seed: int,
    valid: float,
    status: str = "done",
    better: bool = True,
    constant: float = 0.0,
    commit: str = "abc1234",
) -> Path:
    config = to_dict(Config())
    config["optimizer"]["lr"], config["seed"], config["run"]["device"] = lr, seed, f"cuda:{seed}"
    config["rule"]["options"]["seed"] = seed
    identity = identity_of(config)
    folder = results.joinpath("runs", *WANTED.values(), f"seed{seed}-{identity}")
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    told = {"reason": "so it is"} if status != "done" else {}
    told |= {**WANTED, "config_hash": identity, "commit": commit}
    record = whole_record(status=status, seed=seed, scale="mini", best_valid=valid, valid_metric="auc", **told)
    record |= {"higher_is_better": better, "metrics": {"test/auc": 1 - valid, "test/constant_predictions": constant}}
    (folder / "result.json").write_text(json.dumps(record))
    return folder


def test_the_best_mean_on_validation_comes_first(tmp_path: Path) -> None:
    for seed, (low, high) in enumerate(((0.7, 0.6), (0.5, 0.8))):
        leave_run(tmp_path, 1e-3, seed, low)
        leave_run(tmp_path, 1e-2, seed, high)
    leave_run(tmp_path, 1e-1, 0, 0.99, status="diverged")
    metric, ranked = rank(tmp_path, WANTED, "mini")
    assert metric == "auc"
    assert [(entry.settings, entry.values, entry.unsuccessful) for entry in ranked] == [
        ({"optimizer.lr": 1e-2}, (0.6, 0.8), 0),
        ({"optimizer.lr": 1e-3}, (0.7, 0.5), 0),
        ({"optimizer.lr": 1e-1}, (), 1),
    ]
    shown = show(metric, ranked).splitlines()
    assert shown[0].split() == ["optimizer.lr", "valid", "auc", "seeds", "failed"]
    assert shown[2].split() == ["0.01", "0.7000", "±", "0.1414", "2", "0"]
    assert shown[4].split() == ["0.1", "–", "0", "1"]


def test_runs_with_constant_predictions_are_counted(tmp_path: Path) -> None:
    leave_run(tmp_path, 1e-3, 0, 0.7)
    leave_run(tmp_path, 1e-2, 0, 0.8, constant=1.0)
    leave_run(tmp_path, 1e-2, 1, 0.9)
    metric, ranked = rank(tmp_path, WANTED, "mini")
    shown = show(metric, ranked).splitlines()
    assert shown[0].endswith("constant predictions")
    assert [line.split()[-1] for line in shown[2:]] == ["1", "0"]


def test_a_metric_that_should_be_low_is_ranked_the_other_way(tmp_path: Path) -> None:
    leave_run(tmp_path, 1e-3, 0, 0.7, better=False)
    leave_run(tmp_path, 1e-2, 0, 0.6, better=False)
    assert [entry.values for entry in rank(tmp_path, WANTED, "mini")[1]] == [(0.6,), (0.7,)]


def test_a_configuration_of_another_run_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leave_run(tmp_path, 1e-3, 0, 0.7)
    file = leave_run(tmp_path, 1e-2, 0, 0.9) / "config.yaml"
    for text in (file.read_text().replace("lr: 0.01", "lr: 0.1"), "rule: none", "[]"):
        file.write_text(text)
        assert [entry.values for entry in rank(tmp_path, WANTED, "mini")[1]] == [(0.7,)]
        assert f"left out: the configuration '{file}' is not that of the run beside it" in capsys.readouterr().err


def test_runs_of_different_code_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leave_run(tmp_path, 1e-3, 0, 0.7)
    leave_run(tmp_path, 1e-3, 1, 0.7)
    rank(tmp_path, WANTED, "mini")
    assert capsys.readouterr().err == ""
    leave_run(tmp_path, 1e-2, 0, 0.9, commit="def5678")
    rank(tmp_path, WANTED, "mini")
    assert "these runs are of different code, commits abc1234, def5678" in capsys.readouterr().err


def test_other_scales_do_not_count(tmp_path: Path) -> None:
    leave_run(tmp_path, 1e-3, 0, 0.7)
    with pytest.raises(ResultsError, match="no run of task=cora model=gcn rule=dfa at scale paper"):
        rank(tmp_path, WANTED, "paper")


def test_the_command_ranks_what_was_trained(toys: Toys, command: Command) -> None:
    for lr in (1e-3, 1e-1):
        toys.run(f"optimizer.lr={lr}")
    chosen = ["task=toy", "model=toy_mlp", "rule=bp", f"run.results_dir={toys.results}"]
    code, out, _ = command(main, *chosen)
    assert code == 0 and out.splitlines()[0].split()[0] == "optimizer.lr" and len(out.splitlines()) == 4
    assert command(main, *chosen, "optimizer.lr=0.5", "seed=3")[::2] == (
        2,
        "error: a ranking is of all runs of a task, model, rule and scale: leave out 'optimizer.lr=0.5'\n",
    )
    code, _, err = command(main, *chosen, "scale=smok")
    assert code == 2 and err.startswith("error: unknown scale 'smok'; did you mean 'smoke'?")
    code, _, err = command(main, "task=click_log", "rule=dfa")
    assert code == 2 and err.startswith("error: model 'gcn' is for tasks of graphs, 'click_log' is one of recommenders")
    code, _, err = command(main, *chosen, "scale=smoke")
    assert code == 2 and err.count("\n") == 1 and "no run of task=toy" in err
