"""The search: what it proposes, what it keeps, and that it looks at nothing but validation."""

import csv
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from benchmarks.commands.search import main
from benchmarks.config import compose_config, resolve
from benchmarks.run.execute import record_failure
from benchmarks.run.records import RunFolder
from benchmarks.tuning.search_report import CONFIGURED
from benchmarks.tuning.spaces import read_space
from benchmarks.utils.paths import CONFIG_DIR
from tests.conftest import Command, Toys


@pytest.fixture
def space(tmp_path: Path) -> Path:
    file = tmp_path / "space.yaml"
    file.write_text("optimizer.lr: {low: 0.0001, high: 0.5, log: true}\n")
    return file


def _search(command: Command, toys: Toys, space: Path, *more: str) -> tuple[int, str, str]:
    return command(main, str(space), *toys.overrides, "--jobs", "1", *more)


def _records(toys: Toys) -> list[dict[str, Any]]:
    return [record for path in toys.results.rglob("result.json") if (record := RunFolder(path.parent).read())]


def _rows(toys: Toys, name: str = "toy-toy_mlp-bp-paper") -> list[dict[str, str]]:
    return list(csv.DictReader((toys.results / "search" / f"{name}.csv").open()))


def test_the_best_on_validation_is_chosen_and_its_file_makes_that_run(
    toys: Toys, command: Command, space: Path
) -> None:
    pytest.importorskip("optuna")
    code, out, err = _search(command, toys, space, "--trials", "5", "--seeds", "2", "--at-once", "2")
    assert (code, err) == (0, "")
    rows = _rows(toys)
    assert [row["trial"] for row in rows] == [str(number) for number in (CONFIGURED, *range(1, 6))]
    assert rows[0]["optimizer.lr"] == "0.001"
    # What each row says, from the records themselves.
    records = _records(toys)
    assert len(records) == 2 * len({row["optimizer.lr"] for row in rows})
    valid: dict[float, list[float]] = {}
    for path in toys.results.rglob("result.json"):
        rate = yaml.safe_load((path.parent / "config.yaml").read_text())["optimizer"]["lr"]
        record = RunFolder(path.parent).read()
        assert record is not None
        valid.setdefault(rate, []).append(record["best_valid"])
    for row in rows:
        found = valid[float(row["optimizer.lr"])]
        assert float(row["valid/accuracy"]) == pytest.approx(sum(found) / 2)
        assert float(row["std"]) == pytest.approx(abs(found[0] - found[1]) / 2**0.5) and row["n"] == "2"
    best = max(valid, key=lambda rate: sum(valid[rate]))

    shown = (toys.results / "search" / "toy-toy_mlp-bp-paper.md").read_text()
    assert shown in out
    means = [float(line.split("|")[3].split("±")[0]) for line in shown.splitlines() if re.match(r"\| +(\d|conf)", line)]
    assert means == sorted(means, reverse=True) and len(means) == 6
    for record in records:  # no test score, anywhere
        for key, value in record["metrics"].items():
            if key.startswith("test/log_loss"):
                assert f"{value:.4f}" not in shown

    chosen = (toys.results / "search" / "chosen" / "toy-toy_mlp-bp-paper.yaml").read_text()
    assert yaml.safe_load(chosen) == {"optimizer": {"lr": best}}
    assert "_target_" not in chosen
    words = shlex.split(chosen.splitlines()[2].removeprefix("#"))
    folder = str(toys.results / "search")
    assert words[:7] == ["python", "-m", "benchmarks", "train", "--config-dir", folder, "+chosen=toy-toy_mlp-bp-paper"]
    with_it = [f"hydra.searchpath=[file://{toys.results}/search]", "+chosen=toy-toy_mlp-bp-paper"]
    config = resolve(compose_config([*toys.overrides, *with_it]))
    assert RunFolder.of(config).read() is not None, "its run is one of those recorded"


def test_a_search_begun_again_goes_on_where_it_was(
    toys: Toys, command: Command, space: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("optuna")
    whole = toys.elsewhere("whole")
    assert _search(command, whole, space, "--trials", "6", "--at-once", "2")[0] == 0
    monkeypatch.setenv("TOY_FAULT", "leave@4")
    monkeypatch.setenv("TOY_FAULT_ONCE", str(toys.results.parent / "left"))
    with pytest.raises(BaseException):  # noqa: B017  (the toy's own)
        _search(command, toys, space, "--trials", "6", "--at-once", "2")
    assert _search(command, toys, space, "--trials", "2", "--at-once", "2")[0] == 0
    kept = {path: path.stat().st_mtime_ns for path in toys.results.rglob("result.json")}
    assert _search(command, toys, space, "--trials", "6", "--at-once", "2")[0] == 0
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in kept.items())
    assert _rows(toys) == _rows(whole)
    other = _search(command, toys, space, "--trials", "6", "--at-once", "2", "--sampler-seed", "1", "--name", "other")
    assert other[0] == 0
    assert _rows(toys, "other")[0] == _rows(toys)[0] and _rows(toys, "other")[1:] != _rows(toys)[1:]


def test_the_report_of_another_search_is_kept(toys: Toys, command: Command, space: Path) -> None:
    pytest.importorskip("optuna")
    few = ["--trials", "1", "optimizer.weight_decay=0.0"]
    assert _search(command, toys, space, *few)[0] == 0
    files = {path: path.read_bytes() for path in (toys.results / "search").rglob("*.*")}

    def refused(what: str, *more: str) -> None:
        runs = len(_records(toys))
        code, out, err = _search(command, toys, space, *more)
        kept = f"the report '{toys.results}/search/toy-toy_mlp-bp-paper.md' is of {what}, and is kept"
        assert (code, out, err) == (2, "", f"error: {kept} (see --force and --name)\n")
        assert len(_records(toys)) == runs, "nothing is run for it"
        assert files == {path: path.read_bytes() for path in (toys.results / "search").rglob("*.*")}

    refused("other held settings", "--trials", "1", "optimizer.weight_decay=0.1")
    refused("other held settings", "--trials", "1")
    assert _search(command, toys, space, "optimizer.weight_decay=0.0", "--trials", "2")[0] == 0, "it goes further"
    files = {path: path.read_bytes() for path in (toys.results / "search").rglob("*.*")}
    space.write_text("optimizer.lr: {low: 0.001, high: 0.5, log: true}\n")
    refused("another space", *few)
    refused("another space and other held settings", *few, "trainer.epochs=1")
    assert _search(command, toys, space, *few, "--name", "other")[0] == 0
    assert _search(command, toys, space, *few, "--force")[0] == 0
    assert _rows(toys) == _rows(toys, "other")


def test_the_report_of_a_search_with_other_data_is_kept(toys: Toys, command: Command, space: Path) -> None:
    pytest.importorskip("optuna")
    assert _search(command, toys, space, "--trials", "1")[0] == 0
    report = toys.results / "search" / "toy-toy_mlp-bp-paper.md"
    report.write_text(report.read_text().replace("; toy (", "; clouds ("))
    code, _, err = _search(command, toys, space, "--trials", "1")
    assert code == 2 and "is of other data, and is kept" in err
    assert "clouds (" in report.read_text()


def test_a_trial_that_diverges_is_listed_and_not_chosen(toys: Toys, command: Command, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    (tmp_path / "choices.yaml").write_text("optimizer.lr: [0.05, 1.0e+39]\noptimizer.weight_decay: [0.0]\n")
    code, out, err = _search(command, toys, tmp_path / "choices.yaml", "--trials", "4", "optimizer.weight_decay=0.01")
    assert code == 0, err
    rows = _rows(toys)
    assert {row["failed"] for row in rows if row["optimizer.lr"] == "1e+39"} == {"1"}
    assert all("weight_decay" not in key for row in rows for key in row), "what is given on the command line is held"
    last = [line for line in out.splitlines() if line.startswith("|")][-1]
    assert "1e+39" in last and last.split("|")[3].strip() == "–"


def test_configured_settings_that_leave_no_metric_end_the_search(
    toys: Toys, command: Command, space: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As which way the metric improves is not known then; a search that took a direction would choose the worst."""
    pytest.importorskip("optuna")
    record_failure(toys.config(), "its worker process died 3 times (out of memory?)")
    code, _, err = _search(command, toys, space, "--trials", "2")
    assert code == 2 and "the settings as configured come to no evaluation: its worker process died" in err
    assert not (toys.results / "search").exists()


def test_choices_are_taken_as_they_are(toys: Toys, command: Command, tmp_path: Path) -> None:
    """Null, text that on the command line would be a number or a sweep, and a number as configuration files have it."""
    pytest.importorskip("optuna")
    named = {"name": "toy", "family": None, "source": "stand_in", "options": {"file": "x", "worse": False}}
    ConfigStore.instance().store(group="task", name="toy_named", node=named)
    choices = {"trainer.patience": "[null]", "task.options.file": "['1e3', 'a,b', 'None']", "rule.options.seed": "[1]"}
    (tmp_path / "as_is.yaml").write_text(
        "".join(f"{key}: {values}\n" for key, values in choices.items())
        + "task.options.worse: [true]\noptimizer.lr: [1e-3]\n"
    )
    code, out, err = _search(command, toys, tmp_path / "as_is.yaml", "task=toy_named", "rule=dfa", "--trials", "9")
    assert code == 0, err
    tried = {row["task.options.file"] for row in _rows(toys, "toy-toy_mlp-dfa-paper")}
    assert tried == {"x", "1e3", "a,b", "None"}, "the sampler tries every choice"
    configs = [yaml.safe_load(path.read_text()) for path in toys.results.rglob("config.yaml")]
    assert {config["task"]["options"]["file"] for config in configs} == tried
    assert {config["trainer"]["patience"] for config in configs} == {None}
    assert {(type(config["optimizer"]["lr"]), config["optimizer"]["lr"]) for config in configs} == {(float, 0.001)}
    assert {row["trainer.patience"] for row in _rows(toys, "toy-toy_mlp-dfa-paper")} == {"null"}
    assert " null |" in out and "trainer.patience one of null" in out
    (chosen,) = (toys.results / "search" / "chosen").glob("*.yaml")
    again = [f"hydra.searchpath=[file://{toys.results}/search]", f"+chosen={chosen.stem}"]
    config = resolve(compose_config([*toys.overrides, "task=toy_named", "rule=dfa", *again]))
    assert RunFolder.of(config).read() is not None, "its run is one of those recorded"


def test_bad_input_is_one_line(
    toys: Toys, command: Command, space: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bad.yaml").write_text("optimizer.lr: {low: 0.1, high: 0.01}\n")
    (tmp_path / "log.yaml").write_text("optimizer.lr: {low: 0.0, high: 0.01, log: true}\n")
    (tmp_path / "still.yaml").write_text("optimizer.lr: {low: 0.1, high: 1.0, step: 0}\n")
    (tmp_path / "half.yaml").write_text("trainer.epochs: {low: 1, high: 5, step: 0.5}\n")
    (tmp_path / "one.yaml").write_text("optimizer.lr: 0.1\n")
    (tmp_path / "typo.yaml").write_text("optimizer.lr: {low: 0.1, hi: 0.2}\n")
    (tmp_path / "empty.yaml").write_text("optimizer.lr: []\n")
    (tmp_path / "seeds.yaml").write_text("seed: [7, 8]\n")
    (tmp_path / "idle.yaml").write_text("run.checkpoint_seconds: [1, 2]\n")
    (tmp_path / "none.yaml").write_text("model.options.nothing: [1]\n")
    (tmp_path / "beside.yaml").write_text("optimizer.weight_decy: [0.1]\n")
    cases: list[tuple[str | Path, list[str], str]] = [
        ("nowhere", [], "unknown search space 'nowhere'; known: graphs"),
        (tmp_path / "bad.yaml", [], "optimizer.lr: "),
        (tmp_path / "log.yaml", [], "optimizer.lr: "),
        (tmp_path / "still.yaml", [], "optimizer.lr: "),
        (tmp_path / "half.yaml", [], "the step between integers must be an integer, not 0.5"),
        (tmp_path / "one.yaml", [], "optimizer.lr must be a list, or have low, high and perhaps log or step"),
        (tmp_path / "typo.yaml", [], "optimizer.lr must be a list, or have low, high and perhaps log or step"),
        (tmp_path / "empty.yaml", [], "optimizer.lr: "),
        (tmp_path / "none.yaml", [], "none of its keys is left"),
        (tmp_path / "beside.yaml", [], "unknown key 'optimizer.weight_decy'; did you mean 'optimizer.weight_decay'?"),
        (space, ["++optimizer.lr=0.02"], "none of its keys is left"),
        (space, ["seed=5"], "seed=5: a search runs each proposal with seeds 0 to n - 1 (--seeds)"),
        (tmp_path / "seeds.yaml", [], "seed: a search runs each proposal with seeds"),
        (tmp_path / "idle.yaml", [], "run.checkpoint_seconds changes no result, so that there is nothing to search"),
        (space, ["--trials", "0"], "--trials: must be from 1 to"),
        (space, ["model.points=[nowhere]"], "'nowhere' matches no module"),
    ]
    pytest.importorskip("optuna")
    for file, more, message in cases:
        code, _, err = _search(command, toys, Path(file), *more)
        assert code == 2 and err.count("\n") == 1 and message in err, err
    monkeypatch.setitem(sys.modules, "optuna", None)
    code, _, err = _search(command, toys, space)
    assert (code, err) == (2, "error: the search needs Optuna: pip install -e '.[search]'\n")
    assert not (toys.results / "search").exists()


@pytest.mark.parametrize("file", sorted((CONFIG_DIR / "search").glob("*.yaml")), ids=lambda file: file.stem)
def test_a_ready_space_holds_keys_and_published_values_of_its_models(file: Path) -> None:
    command = re.search(r"benchmarks search \w+ (.*)", file.read_text())
    assert command is not None
    for rule in ("bp", "dfa", "shallow"):
        config = compose_config([*command[1].split(), "scale=paper", f"rule={rule}"])
        for key, axis in read_space(file.stem).items():
            group, option = key.split(".", 1)
            value = (
                config[group].options[option.removeprefix("options.")] if "options" in key else config[group][option]
            )
            assert axis.low <= value <= axis.high or (axis.log and value == 0), (key, rule, value)


@pytest.mark.parametrize("file", sorted((CONFIG_DIR / "sweep").glob("*.yaml")), ids=lambda file: file.stem)
def test_every_value_of_a_ready_sweep_composes(file: Path) -> None:
    content = yaml.safe_load(file.read_text())["hydra"]["sweeper"]["params"]
    command = re.search(rf"benchmarks train -m \+sweep={file.stem} (.*)", file.read_text())
    assert command is not None
    common = compose_config(command[1].split())
    for key, values in content.items():
        override = OverridesParser.create().parse_override(f"{key}={values}")
        assert override.is_sweep_override() and OmegaConf.select(common, key) is not None
        for value in override.sweep_string_iterator():
            resolve(compose_config([*command[1].split(), f"{key}={value}"]))
