"""Table files that cannot be used: told in one line that names the file."""

from pathlib import Path

import pytest

from benchmarks.errors import ConfigError
from benchmarks.tables.spec import load_spec
from tests.helpers.tables import edited


def test_unknown_table_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"unknown table 'table_9'; known: table_1, "):
        load_spec("table_9")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reference": "table_9"}, "unknown reference 'table_9'"),
        ({"referenc": "table_4"}, "referenc"),
        ({"row": "{task}"}, r"'cora/bp' does not have the form '\{task\}'"),
        ({"overrides": ["task={dataset}"]}, r"cannot fill in 'task=\{dataset\}'"),
        ({"metrics": {"auc": {"record": "test/auc", "label": "AUC"}}}, "table_4 reports auc, ap"),
        ({"metrics": {"auc": {"label": "AUC"}}}, "metric 'auc'"),
        ({"tolerance": {"bp": {"points": "few"}}}, "tolerance 'bp'"),
        ({"tolerance": {"bp": {"points": 1, "percent": 3}}}, "percent"),
        ({"seeds": {"paper": 3, "mini": 0, "smoke": 1}}, "at least 1 for mini"),
        ({"cost_seconds": {"paper": {"default": 1}}}, "`default` for mini, smoke"),
        ({"cost_seconds": {"paper": 3}}, "patterns to seconds, got 3"),
        ({"cost_seconds": {"mini_gpu": {"default": 1}}}, "cost_seconds: unknown 'mini_gpu'"),
        ({"cost_seconds": {key: {"*": 1} for key in ("paper", "mini", "smoke", "mini_cuda")}}, "smoke, mini_cuda"),
        ({"quoted": ["*"]}, "nothing can be run"),
        ({"seeds_for": {"mini": {"*": 0}}}, "seeds_for must give at least 1"),
        ({"seeds_for": {"large": {"*": 2}}}, "seeds_for knows no scale 'large'; known: paper, mini, smoke"),
        ({"added": {"cora/bp": [""]}}, "cora/bp is added, but already there"),
        ({"base": "table_9"}, "no other table 'table_9' to start from"),
        ({"base": "table_4"}, "no other table 'table_4' to start from"),
        ({"profiles": {"some": {"cells": "*"}}}, "profile 'some'"),
    ],
)
def test_a_malformed_file_is_refused_in_one_line(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        load_spec("table_4", folder=edited(tmp_path, "table_4", (), **changes))
    assert "\n" not in str(refused.value)
    assert "table_4.yaml" in str(refused.value)


def test_a_missing_key_and_broken_yaml_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="selection"):
        load_spec("table_4", folder=edited(tmp_path, drop=("selection",)))
    (tmp_path / "table_4.yaml").write_text("title: [1", encoding="utf-8")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_spec("table_4", folder=tmp_path)
