"""Configurations of a table's runs: those that Hydra composes, kept for the next command, not trusted when damaged."""

from pathlib import Path

import pytest

from benchmarks.config import Config, compose_config, resolve
from benchmarks.tables import composed as composed_module
from benchmarks.tables.composed import composed_runs
from benchmarks.utils.paths import add_config_folder
from tests.conftest import Toys

_ASKED = [
    (("task=cora", "model=gcn", "rule=dfa", "scale=mini"), 6),
    (("task=cora", "model=gat", "rule=bp"), 1),
    (("task=cora", "model=gcn", "rule=fa", "+optimizer.options.name='run ${seed}'"), 5),
]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(composed_module, "cache_dir", lambda: tmp_path / "cache")
    return tmp_path / "cache" / "composed"


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What is composed while a test runs."""
    found: list[list[str]] = []

    def compose(overrides: list[str]) -> object:
        found.append(overrides)
        return compose_config(overrides)

    monkeypatch.setattr(composed_module, "compose_config", compose)
    return found


def _one_by_one() -> list[list[Config]]:
    return [
        [resolve(compose_config([*overrides, f"seed={seed}"])) for seed in range(seeds)] for overrides, seeds in _ASKED
    ]


def test_they_are_those_that_are_composed_one_by_one_and_composed_once(counted: list[list[str]]) -> None:
    assert composed_runs(_ASKED, "table") == _one_by_one()
    assert len(counted) == len(_ASKED)
    assert composed_runs(_ASKED, "table") == _one_by_one()
    assert len(counted) == len(_ASKED), "what is kept was composed again"


@pytest.mark.parametrize("damage", ["cut", "altered", "empty", "binary", "other", "folder"])
def test_a_damaged_file_is_not_trusted(cache: Path, counted: list[list[str]], damage: str) -> None:
    composed_runs(_ASKED, "table")
    (kept,) = cache.glob("*.json")
    content = kept.read_bytes()
    altered = content.replace(b'"lr": 0.01', b'"lr": 0.02')
    assert altered != content
    damaged = {"cut": content[:-40], "altered": altered, "empty": b"", "binary": b"\xff\0" * 50, "other": b"x\n[[{}]]"}
    if damage == "folder":
        kept.unlink()
        kept.mkdir()
    else:
        kept.write_bytes(damaged[damage])
    assert composed_runs(_ASKED, "table") == _one_by_one()
    assert len(counted) == 2 * len(_ASKED)
    if damage != "folder":
        assert kept.read_bytes() == content


def test_a_cache_that_cannot_be_written_costs_time_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(composed_module, "cache_dir", lambda: tmp_path / "file")
    for _ in range(2):
        assert composed_runs(_ASKED, "table") == _one_by_one()


def test_files_and_the_environment_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    model = tmp_path / "own" / "model" / "mine.yaml"
    model.parent.mkdir(parents=True)
    add_config_folder(str(tmp_path / "own"))
    asked = [(("task=cora", "model=mine"), 1)]
    for hidden, folder in ((4, "a"), (5, "a"), (5, "b")):
        model.write_text(f"{{name: gcn, options: {{hidden: {hidden}}}}}")
        monkeypatch.setenv("DFA_RESULTS_DIR", folder)
        ((config,),) = composed_runs(asked, "table")
        assert (config.model.options, config.run.results_dir) == ({"hidden": hidden}, folder)
    assert len(list(cache.glob("*.json"))) == 3


def test_values_that_the_file_could_not_give_back_are_not_kept(toys: Toys, cache: Path) -> None:
    asked = [((*toys.overrides, "+model.options.by_layer={1: 8}"), 1)]
    for _ in range(2):
        assert composed_runs(asked, "table")[0][0].model.options["by_layer"] == {1: 8}
    assert not list(cache.glob("*"))


def test_the_oldest_make_room(toys: Toys, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(composed_module, "MOST_KEPT", 2)
    for hidden in range(4):
        composed_runs([((*toys.overrides, f"model.options.hidden={hidden + 1}"), 1)], "table")
    texts = [path.read_text(encoding="utf-8") for path in cache.glob("*.json")]
    assert sorted('"hidden": 4' in text or '"hidden": 3' in text for text in texts) == [True, True]
