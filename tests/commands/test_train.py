"""The command line: bad input in one line and with the right exit code, what runs report, trouble with folders."""

import errno
import importlib
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks.commands import fetch as data
from benchmarks.commands import train as cli
from benchmarks.errors import ConfigError
from benchmarks.launchers import base
from benchmarks.launchers.report import describe
from benchmarks.run.build import load_components
from benchmarks.run.records import RunFolder
from benchmarks.utils.exits import one_line
from benchmarks.utils.paths import REPOSITORY
from dfa import RULES
from tests.conftest import TOY, Command, Toys
from tests.run.test_execute import _leave_at


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["task=imagenet"], r"unknown task 'imagenet'; known: .*cora.*; one of your own is a file task/imagenet.yaml"),
        (["model=resnet"], r"unknown model 'resnet'; known: .*gcn"),
        (["task=coar"], r"unknown task 'coar'; did you mean 'cora'\? known: .*cora"),
        (["rule.name=dfaa"], r"unknown rule 'dfaa'"),
        (["scale=smok"], r"unknown scale 'smok'; did you mean 'smoke'\? known: paper, mini, smoke\n"),
        (["rule=hebb"], r"unknown rule 'hebb'; known: bp, .*dfa, .*shallow"),
        (["optimizer=lion"], r"unknown optimizer 'lion'; known: adam, adamw, radam, sgd"),
        (["schedule=cosine"], r"unknown schedule 'cosine'; known: constant, exponential, noam, one_cycle, plateau; "),
        (["task.name=imagenet"], r"unknown task 'imagenet'; known: .*toy"),
        (["model.name=resnet"], r"unknown model 'resnet'; known: .*toy_mlp"),
        (["rule.name=hebb"], r"unknown rule 'hebb'; known: bp, .*dfa, .*shallow"),
        (["optimizer.name=lion"], r"unknown optimizer 'lion'; known: adam, adamw, radam, sgd"),
        (
            ["task.family=vision"],
            r"unknown task family 'vision'; known: graphs, language, recommenders, view_synthesis\n",
        ),
        (["task.family=launchers"], r"unknown task family 'launchers'"),
        (["scale=huge"], r"unknown scale 'huge'; known: paper, mini, smoke"),
        (["trainer.colour=red"], r"unknown key 'trainer.colour'; known: trainer.epochs, .*trainer.threads\n"),
        (["learning_rate=1"], r"unknown key 'learning_rate'; known: task, .*run; an option of a rule is "),
        (["optimizer.lrr=1"], r"unknown key 'optimizer.lrr'; did you mean 'optimizer.lr'\?\n"),
        (["+optimizer.lrr=1"], r"unknown key 'optimizer.lrr'; did you mean 'optimizer.lr'\?\n"),
        (["++trainer.epoch=1"], r"unknown key 'trainer.epoch'; did you mean 'trainer.epochs'\?\n"),
        (["+trainer.lr=1"], r"unknown key 'trainer.lr'; did you mean 'optimizer.lr'\?\n"),
        (["+epochs=1"], r"unknown key 'epochs'; did you mean 'trainer.epochs'\?\n"),
        (["+colour=red"], r"unknown key 'colour'; known: task, .*run; an option of a rule is rule.options.colour, "),
        (["codec=sign"], r"unknown key 'codec'; known: .* an option of a rule is rule.options.codec, of a model"),
        (["rule=bp,dfa"], r"'rule=bp,dfa' holds several values: put -m before it"),
        (["plugins=mine.py"], r"plugins takes a list: plugins=\[mine.py\]\n"),
        (["--resolve"], r"--resolve is for --cfg"),
        (["-m", "--cfg", "job"], r"--cfg prints the configuration of one run: leave out -m\n"),
        (["+task.option.x=1"], r"unknown key 'task.option'; did you mean 'task.options'\?\n"),
        (["task.option.x=1"], r"unknown key 'task.option'; did you mean 'task.options'\?\n"),
        (["trainer.epochs=many"], r"'many'.*Integer.*trainer.epochs"),
        (["seed=1.5"], r"1.5.*Integer.*seed"),
        (["+model.options.depth=3"], r"model 'toy_mlp' has no option 'depth'; known: classes, dropout, hidden"),
        (["+task.options.sample=3"], r"task 'toy' has no option 'sample'; known: .*samples"),
        (["+model.options.dropout=high"], r"model 'toy_mlp': option 'dropout' must be of type float, got 'high'"),
        (["+model.options.dropout=7.0"], r"model 'toy_mlp' cannot be made: .*dropout probability"),
        (["rule=dfa", "rule.options.distribution=cauchy"], r"unknown distribution 'cauchy'; known: "),
        (["rule=bp", "+rule.options.scale=2.0"], r"rule 'bp' has no option 'scale'"),
        (["model.points=[layers.*]"], r"'layers\.\*' matches no module; candidates: .*blocks"),
        (["model.error_at=[norm]", "rule=dfa"], r"'norm' matches no module"),
        (["+model.options.output=detached"], r"the loss has no gradient"),
        (["run.device=tpu"], r"device 'tpu' is not usable here"),
        (["run.device=cuda:99"], r"device 'cuda:99' is not usable here"),
        (["plugins=[nowhere.py]"], r"plugin 'nowhere.py' does not exist"),
        (["plugins=[no.such.module]"], r"plugin 'no.such.module' cannot be imported"),
        (["task.source=real", "+task.options.file=a.csv"], r"no data at .*a\.csv; place them there"),
        (["trainer.epochs=0"], r"trainer.epochs must be at least 1"),
        (["nonsense"], r"nonsense"),
        (["model.points=[a"], r"model.points"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2_and_writes_nothing(
    toys: Toys, command: Command, overrides: list[str], message: str
) -> None:
    code, out, err = command(cli.main, *toys.overrides, *overrides)
    assert code == 2
    assert re.fullmatch(r"error: [^\n]+\n", err), err
    assert re.search(message, err), err
    assert len(err) < 600 and "Traceback" not in err and out == ""
    assert not toys.results.exists() or toys.files() == []


@pytest.mark.parametrize("swept", ["+optimizer.lrr=1,2", "optimizer.lrr=1,2"])
def test_a_sweep_over_a_key_outside_of_the_schema_is_refused(toys: Toys, command: Command, swept: str) -> None:
    code, out, err = command(cli.main, "-m", *toys.overrides, swept)
    assert (code, out, err) == (2, "", "error: unknown key 'optimizer.lrr'; did you mean 'optimizer.lr'?\n")
    assert not toys.results.exists()


def test_a_plugin_with_a_mistake_is_not_loaded_the_second_time_either(toys: Toys, tmp_path: Path) -> None:
    half = "from dfa import RULES, Backpropagation\nRULES.register('half')(type('Half', (Backpropagation,), {}))\n"
    (tmp_path / "half.py").write_text(f"{half}raise ValueError('no further')\n")
    for _ in range(2):
        with pytest.raises(ConfigError, match="cannot be imported: ValueError: no further"):
            load_components(toys.config(f"plugins=[{TOY},{tmp_path}/half.py]"))
        assert "half" not in RULES and "bp" in RULES


def test_a_plugin_with_a_mistake_is_named(toys: Toys, command: Command, tmp_path: Path) -> None:
    clash = "from dfa import RULES\n@RULES.register('bp')\nclass A: 0"
    for name, content in {"syntax.py": "def (", "clash.py": clash}.items():
        (tmp_path / name).write_text(content)
        code, _, err = command(cli.main, *toys.overrides, f"plugins=[{TOY},{tmp_path / name}]")
        assert (code, err.count("\n")) == (2, 1) and f"{name}' cannot be imported" in err


def test_one_run_is_reported(toys: Toys, command: Command) -> None:
    code, out, err = command(cli.main, *toys.overrides)
    record = RunFolder.of(toys.config()).read()
    assert (code, err) == (0, "") and record is not None
    assert f"{record['metrics']['test/accuracy']:.4f}" in out
    assert "toy toy_mlp bp seed 0: done" in out and "stand-in data" in out


@pytest.mark.parametrize("name", ["config.yaml", "metrics.jsonl"])
def test_a_recorded_run_whose_folder_is_not_whole_is_warned_of(toys: Toys, command: Command, name: str) -> None:
    _, folder = toys.run()
    assert command(cli.main, *toys.overrides)[2] == ""
    (folder.path / name).unlink()
    code, _, err = command(cli.main, *toys.overrides)
    assert code == 0 and re.fullmatch(rf"warning: toy toy_mlp bp seed 0: done, but [^\n]*{name}[^\n]*run again\n", err)


def test_runs_that_lack_the_same_data_are_told_in_one_line(toys: Toys, command: Command) -> None:
    missing = [*toys.overrides, "task.source=real", "+task.options.file=clouds.csv", "seed=0,1,2"]
    code, out, err = command(cli.main, "-m", *missing)
    assert code == 2 and re.fullmatch(r"error: 3 runs: no data at [^\n]*clouds.csv; place them there\n", err)
    assert out.count("clouds.csv") == 1 and out.count("not run, for the same reason") == 2


def test_a_device_that_cannot_be_meant_is_refused_whatever_is_recorded(toys: Toys, command: Command) -> None:
    toys.run()
    code, _, err = command(cli.main, *toys.overrides, "run.device=cdua")
    assert code == 2 and err.startswith("error: device 'cdua' is not usable here: ")
    assert command(cli.main, *toys.overrides, "run.device=cuda")[0] == 0, "it need not be here for what is recorded"


def test_a_run_that_diverges_is_recorded_and_ends_with_1(
    toys: Toys, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOY_FAULT", "nan@3")
    code, _, err = command(cli.main, *toys.overrides)
    assert (code, err) == (1, "error: toy toy_mlp bp seed 0: diverged: the training loss is nan at step 5\n")
    assert RunFolder.of(toys.config()).result.exists()


@pytest.mark.parametrize("mode", [[], ["-m"]])
def test_results_that_cannot_be_written(toys: Toys, command: Command, mode: list[str]) -> None:
    toys.results.write_text("in the way")
    code, out, err = command(cli.main, *mode, *toys.overrides, "seed=0")
    assert (code, out) == (2, "")
    assert re.fullmatch(r"error: [^\n]*results[^\n]*\n", err), err
    assert toys.results.read_text() == "in the way"


def test_an_interrupted_run_ends_with_130_and_says_how_to_go_on(
    toys: Toys, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(base, "execute", interrupt)
    code, _, err = command(cli.main, *toys.overrides)
    assert (code, err) == (130, "interrupted; the same command resumes from the last checkpoint\n")


def test_fetching_names_unknown_tasks_and_missing_mirrors(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DFA_OFFLINE", "1")
    code, _, err = command(data.main, "imagenet")
    assert code == 2 and re.fullmatch(r"error: unknown task 'imagenet'; known: [^\n]*cora[^\n]*\n", err)
    pytest.importorskip("torch_geometric")
    code, _, err = command(data.main, "cora", "--data-dir", str(tmp_path))
    assert code == 2 and re.fullmatch(r"error: cora: [^\n]*DFA_OFFLINE[^\n]*\n", err), err


def test_descriptions_are_one_line() -> None:
    assert one_line(OSError(28, "No space left on device")) == "[Errno 28] No space left on device"
    assert one_line(NotADirectoryError(20, "Not a directory", "x/y")) == "'x/y' cannot be used: Not a directory"
    record = {"task": "a", "model": "b", "rule": "c", "seed": 1, "status": "failed", "reason": "E: x"}
    assert describe(record) == "a b c seed 1: failed: E: x"


@pytest.mark.parametrize("script", ["train", "reproduce", "fetch_data"])
def test_scripts_are_thin(script: str) -> None:
    source = (REPOSITORY / "scripts" / f"{script}.py").read_text()
    module = re.findall(r"from (benchmarks\.commands\.\w+) import main", source)
    assert len(module) == 1 and callable(importlib.import_module(module[0]).main)


@pytest.mark.parametrize("trouble", ["full disk", "read-only", "damaged checkpoint", "two damaged checkpoints"])
def test_trouble_with_the_results_folder_is_one_line(
    toys: Toys, command: Command, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    options = [*toys.overrides, "run.checkpoint_seconds=0"]
    config = toys.config("run.checkpoint_seconds=0")
    folder = RunFolder.of(config)
    if "damaged" in trouble:
        _leave_at(monkeypatch, config, 9)
        for path in (folder.checkpoint, folder.previous_checkpoint)[: 2 if "two" in trouble else 1]:
            path.write_bytes(path.read_bytes()[:1000])
    if trouble == "full disk":
        monkeypatch.setattr(torch, "save", _raise(OSError(errno.ENOSPC, "No space left on device")))
    if trouble == "read-only":
        genuine, refuse = Path.mkdir, _raise(OSError(errno.EROFS, "Read-only file system"))
        monkeypatch.setattr(
            Path,
            "mkdir",
            lambda path, *args, **options: (refuse if path == folder.path else genuine)(path, *args, **options),
        )
    code, _, err = command(cli.main, *options)
    assert (code, err) == {
        "full disk": (2, f"error: cannot write to the results folder '{folder.path}': No space left on device\n"),
        "read-only": (2, f"error: cannot write to the results folder '{folder.path}': Read-only file system\n"),
        "damaged checkpoint": (
            0,
            f"warning: unreadable checkpoint '{folder.checkpoint}'; going on from the one before it\n",
        ),
        "two damaged checkpoints": (
            2,
            f"error: unreadable checkpoint '{folder.checkpoint}' and "
            f"unreadable checkpoint '{folder.previous_checkpoint}'; delete them to start over\n",
        ),
    }[trouble]
    assert not list(toys.results.rglob("*.tmp"))


def _raise(error: Exception) -> Callable[..., None]:
    def fail(*arguments: object, **options: object) -> None:
        raise error

    return fail
