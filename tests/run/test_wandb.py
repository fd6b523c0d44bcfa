"""The copy for Weights & Biases, read back from its offline file; and that nothing about it can harm a run."""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from benchmarks.commands import reproduce
from benchmarks.config import identity
from benchmarks.run.execute import execute
from benchmarks.run.record_schema import Record
from benchmarks.run.records import RunFolder
from benchmarks.run.wandb import PROJECT
from benchmarks.tables import targets
from tests.commands.test_reproduce import toy_table
from tests.conftest import TOY, Command, Toys
from tests.helpers.wandb_reader import Copy, flat, read_copies
from tests.helpers.wandb_server import wandb_server

wandb = pytest.importorskip("wandb")


def test_the_offline_copy_is_complete(toys: Toys) -> None:
    config = toys.config("run.wandb=offline", "rule=dfa", "seed=2", "run.wandb_group=table_3")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        record = execute(config)
    (copy,) = read_copies(toys.results / "wandb")

    assert (copy.run.project, copy.run.run_group) == (PROJECT, "table_3")
    assert copy.run.display_name == "toy/toy_mlp/dfa/seed2"
    assert list(copy.run.tags) == ["toy", "toy_mlp", "dfa", "paper"]
    assert copy.config["identity"] == identity(config)
    assert copy.config["optimizer/lr"] == 0.001 and copy.config["task/options/batch_size"] == 12
    assert copy.config["model/points"] == ["blocks.*.act"] and copy.config["seed"] == 2
    assert len(copy.history) == 3
    _assert_copied(copy, RunFolder.of(config), record)


def _assert_copied(copy: Copy, folder: RunFolder, record: Record) -> None:
    """History, summary and end of a run are those on disk."""
    for row, line in zip(copy.history, folder.history(), strict=True):
        assert line.items() <= row.items()
    for key, value in flat(record).items():
        assert copy.summary[key] == pytest.approx(value), key
    assert copy.exit_codes == [0]


def test_a_copy_that_cannot_be_begun_is_a_warning(toys: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**options: Any) -> None:
        raise RuntimeError("no service")

    monkeypatch.setattr(wandb, "init", fail)
    for mode in ("offline", "online"):
        with pytest.warns(UserWarning, match="copy of this run is incomplete: no service") as caught:
            record, _ = toys.run(f"run.wandb={mode}", f"seed={len(mode)}")
        assert record["status"] == "done"
        assert len([warning for warning in caught if "incomplete" in str(warning.message)]) == 1


class _Service:
    """Stands for W&B's run; remembers what it was told."""

    def __init__(self) -> None:
        self.begun: list[dict[str, Any]] = []
        self.rows: list[dict[str, Any]] = []
        self.summary: dict[str, Any] = {}
        self.exit_codes: list[int] = []

    def init(self, **options: Any) -> "_Service":
        self.begun.append(options)
        return self

    def log(self, row: dict[str, Any], step: int) -> None:
        self.rows.append(row)

    def finish(self, exit_code: int) -> None:
        self.exit_codes.append(exit_code)


def test_an_online_copy_is_logged_as_it_goes_and_taken_up_again(toys: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    service = _Service()
    monkeypatch.setattr(wandb, "init", service.init)
    options = ["run.wandb=online", "run.checkpoint_seconds=0"]
    monkeypatch.setenv("TOY_FAULT", "leave@8")
    with pytest.raises(BaseException):  # noqa: B017  (the toy's own)
        toys.run(*options)
    assert len(service.rows) == 1 and not service.exit_codes
    monkeypatch.delenv("TOY_FAULT")
    record, folder = toys.run(*options)
    assert service.rows == folder.history()
    assert [begun["resume"] for begun in service.begun] == ["allow", "allow"]
    assert len({begun["id"] for begun in service.begun}) == 1
    assert service.summary["metrics"] == record["metrics"] and service.exit_codes == [0]


def test_an_unsuccessful_run_ends_its_copy_so_and_an_impossible_one_leaves_none(
    toys: Toys, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = _Service()
    monkeypatch.setattr(wandb, "init", service.init)
    for mode in ("offline", "online"):
        monkeypatch.setenv("TOY_FAULT", "nan@1")
        toys.run(f"run.wandb={mode}", f"seed={len(mode)}")
        monkeypatch.delenv("TOY_FAULT")
        with pytest.raises(Exception, match="gradient"):
            toys.run(f"run.wandb={mode}", "+model.options.output=detached")
    assert (service.exit_codes, len(service.begun)) == ([1, 1], 2)


def test_disabled_writes_nothing(toys: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    service = _Service()
    monkeypatch.setattr(wandb, "init", service.init)
    toys.run("run.wandb=disabled")
    assert not service.begun and not (toys.results / "wandb").exists()


@pytest.fixture
def finished_table(toys: Toys, command: Command, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The copies that a small table leaves, made twice."""
    monkeypatch.setattr(targets, "load_spec", lambda name, **options: toy_table())
    arguments = ["table_3", "--scale", "mini", "--seeds", "2", "--jobs", "1", "--results", str(toys.results)]
    for _ in range(2):
        code, _, err = command(reproduce.main, *arguments, "--set", f"plugins=[{TOY}]")
        assert (code, err) == (0, "")
    return toys.results / "wandb"


def test_every_run_of_a_finished_table_is_read_back_and_uploaded_and_the_table_with_them(
    toys: Toys, finished_table: Path
) -> None:
    copies = read_copies(finished_table)
    assert {copy.run.run_group for copy in copies} == {"table_3"}
    runs = {copy.run.display_name: copy for copy in copies if copy.run.job_type == "run"}
    assert sorted(runs) == [f"gcn/{rule}:cora seed {seed}" for rule in ("bp", "dfa") for seed in range(2)]
    assert len({copy.run.run_id for copy in copies}) == len(copies) == 5
    for copy in runs.values():
        folder = RunFolder(next(toys.results.glob(f"runs/*/*/*/seed*-{copy.config['identity']}")))
        record = folder.read()
        assert record is not None
        assert copy.run.display_name == f"gcn/{record['rule']}:cora seed {record['seed']}"
        assert (copy.config["rule/name"], copy.config["seed"]) == (record["rule"], record["seed"])
        assert len(copy.history) == 1
        _assert_copied(copy, folder, record)

    (table,) = [copy for copy in copies if copy.run.job_type == "table"]
    (artifact,) = table.artifacts
    assert (artifact.name, artifact.type) == ("table_3", "table")
    kept = {entry.path: Path(entry.local_path) for entry in artifact.manifest.contents}
    assert sorted(kept) == ["table_3.csv", "table_3.md", "table_3.tex"]
    for name, path in kept.items():
        assert path.read_bytes() == (toys.results / "tables" / name).read_bytes()
        assert finished_table in path.parents
    assert sorted(table.config["runs"]) == sorted(copy.config["identity"] for copy in runs.values())

    assert "Would sync 5 run(s)" in _sync("--dry-run", finished_table)
    with wandb_server() as server:
        assert _sync(finished_table, server=server.url).count("Finished syncing") == 5
    assert {run["groupName"] for run in server.runs.values()} == {"table_3"}
    for copy in copies:
        sent = server.runs[copy.run.run_id]
        assert sent["displayName"] == copy.run.display_name
        settings = {key: item["value"] for key, item in json.loads(sent["config"]).items() if key != "_wandb"}
        assert flat(settings) == {key: value for key, value in copy.config.items() if value != {}}
        summary = flat(json.loads(server.files[f"{copy.run.run_id}/wandb-summary.json"]))
        assert copy.summary.items() <= summary.items()
        assert [row["step"] for row in server.history[copy.run.run_id]] == [row["step"] for row in copy.history]
    assert [artifact["artifactCollectionName"] for artifact in server.artifacts] == ["table_3"]
    assert "No runs to sync" in _sync("--dry-run", finished_table)


def _sync(*arguments: object, server: str = "http://127.0.0.1:9") -> str:
    """What `wandb sync` says."""
    command = [sys.executable, "-m", "wandb", "sync", *map(str, arguments)]
    environment = {
        "WANDB_BASE_URL": server,
        "WANDB_ERROR_REPORTING": "false",
        "WANDB_API_KEY": "0" * 40,
        "WANDB_SILENT": "false",
    }
    ended = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=100)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout + ended.stderr


@pytest.mark.parametrize("mode", ["offline", "online"])
@pytest.mark.parametrize("fault", ["absent", "full at log", "full at finish"])
def test_an_absent_or_failing_service_is_one_warning_and_the_run_is_as_without(
    toys: Toys, monkeypatch: pytest.MonkeyPatch, mode: str, fault: str
) -> None:
    expected, _ = toys.elsewhere("without").run()

    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    service = _Service()
    monkeypatch.setattr(wandb, "init", service.init)
    if fault == "absent":
        monkeypatch.setitem(sys.modules, "wandb", None)
    else:
        monkeypatch.setattr(service, fault.removeprefix("full at "), full)
    with pytest.warns(UserWarning, match="copy of this run is incomplete") as caught:
        record, folder = toys.run(f"run.wandb={mode}")
    assert len([warning for warning in caught if "incomplete" in str(warning.message)]) == 1
    assert record["metrics"] == expected["metrics"] and folder.read() == record


def test_a_table_whose_copy_fails_is_made_all_the_same(
    toys: Toys, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets, "load_spec", lambda name, **options: toy_table())
    monkeypatch.setitem(sys.modules, "wandb", None)
    settings = ["--set", f"plugins=[{TOY}]", "--results", str(toys.results)]
    with pytest.warns(UserWarning, match="copy of table_3 is incomplete"):
        code, _, _ = command(reproduce.main, "table_3", "--scale", "mini", "--seeds", "1", "--jobs", "1", *settings)
    assert code == 0 and (toys.results / "tables" / "table_3.md").exists()
