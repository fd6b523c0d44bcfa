"""Folders given to options are taken as they are written, whatever Hydra would read in them."""

from pathlib import Path

import pytest

from benchmarks.commands import reproduce, status
from benchmarks.commands import train as cli
from benchmarks.commands.options import overrides
from benchmarks.config import compose_config, resolve
from benchmarks.run import fetch
from benchmarks.task import DataInfo
from tests.conftest import Command

_NAMES = ["2026_11_30", "1e3", "null", "a (1)", "a,b", "x=y", "it's", "back\\slash", "end\\", "[1]", " b"]


@pytest.mark.parametrize("name", _NAMES)
def test_results_go_to_the_folder_that_is_named(name: str) -> None:
    options = reproduce.make_parser().parse_args(["table_3", "--results", name])
    assert resolve(compose_config(overrides(options))).run.results_dir == name


def test_the_home_folder_is_put_in_after_an_equals_sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    options = reproduce.make_parser().parse_args(["table_3", "--results=~/x"])
    assert resolve(compose_config(overrides(options))).run.results_dir == f"{tmp_path}/x"


def test_a_reference_in_the_name_of_a_folder_is_refused(command: Command) -> None:
    code, _, err = command(status.main, "table_3", "--results", "${seed}")
    assert (code, err) == (2, "error: table_3: run.results_dir must name a folder, got '${seed}'\n")


@pytest.mark.parametrize("name", _NAMES)
def test_data_go_to_the_folder_that_is_named(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    task = type("Fetched", (), {"info": DataInfo("cora", "real")})()
    monkeypatch.setattr(fetch, "build_task", lambda config: task)
    assert fetch.fetch_tasks(["cora"], name)
    assert capsys.readouterr().out == f"cora: real data in {name}, 0 file(s) verified\n"


@pytest.mark.parametrize("word", ["run.results_dir=~/x", "rule=it's", "run.data_dir=a'b"])
def test_signs_that_hydra_cannot_read_are_told_with_the_way_to_write_them(command: Command, word: str) -> None:
    told = "a value with signs such as ' ~ ( must be put in quotes, as in \"key='value'\""
    assert command(cli.main, word) == (2, "", f"error: cannot read '{word}': {told}\n")
