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
        ({"overrides_for": {"*:gcnn": []}}, r"overrides_for: no cell matches '\*:gcnn'"),
        ({"members": {"cora/dfaa": ["task=cora"]}}, "members: no cell matches 'cora/dfaa'"),
        ({"seeds_for": {"smoke": {"dfaa": 3}}}, "seeds_for of smoke: no cell matches 'dfaa'"),
        ({"quoted": ["dfaa"]}, "quoted: no cell matches 'dfaa'"),
        ({"rates": {"factors": [1], "seeds": {"dfaa": 2}}}, "seeds of rates: no cell matches 'dfaa'"),
        ({"profiles": {"some": {"records": ["x"], "cells": "dfaa"}}}, "profile 'some': no cell matches 'dfaa'"),
        ({"names": {"colunm": {"cora": "x"}}}, "names: unknown field 'colunm'; did you mean 'column'"),
        ({"overrides": ["task={task}_links", "seed=5"]}, "'seed=5' cannot count, since seed is set for every run"),
        ({"overrides_for": {"*": ["scale=mini"]}}, "'scale=mini' cannot count"),
        ({"overrides_at": {"mini": {"*:gcnn": []}}}, r"overrides_at of mini: no cell matches '\*:gcnn'"),
        ({"overrides_at": {"mini": {"*": ["seed=5"]}}}, "'seed=5' cannot count"),
        ({"overrides_at": {"large": {"*": []}}}, "overrides_at: unknown scale 'large'; known: paper, mini, smoke"),
        ({"figures": ["figure_none"]}, "figures: unknown figure 'figure_none'"),
        ({"figures": ["figure_2", "figure_2"]}, "figures: 'figure_2' is there twice"),
        ({"reference": "", "rows": ["cora/bp", "cora/bp"]}, "rows: 'cora/bp' is there twice"),
        ({"rows": "bp"}, r"'rows' must be a list, as \[a, b\]"),
    ],
)
def test_a_malformed_file_is_refused_in_one_line(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        load_spec("table_4", folder=edited(tmp_path, "table_4", (), **changes))
    assert "\n" not in str(refused.value)
    assert "table_4.yaml" in str(refused.value)


def test_a_missing_key_and_broken_yaml_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"table_4\.yaml: 'selection' is missing"):
        load_spec("table_4", folder=edited(tmp_path, drop=("selection",)))
    (tmp_path / "table_4.yaml").write_text("title: [1", encoding="utf-8")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_spec("table_4", folder=tmp_path)


def test_a_pattern_may_be_for_a_rule_that_is_added_later(tmp_path: Path) -> None:
    load_spec("table_4", folder=edited(tmp_path, seeds_for={"mini": {"*/fa": 5}}))


def test_overrides_at_a_scale_count_there_alone(tmp_path: Path) -> None:
    entries = {"mini": {"cora/dfa": ["trainer.epochs=7"], "cora/*": ["optimizer.lr=1"]}}
    cells = {cell.name: cell for cell in load_spec("table_4", folder=edited(tmp_path, overrides_at=entries)).cells}
    assert set(cells["cora/dfa"].runs_at("mini")[0][-2:]) == {"trainer.epochs=7", "optimizer.lr=1"}
    assert cells["cora/bp"].runs_at("mini")[0][-1] == "optimizer.lr=1"
    for name, scale in (("cora/dfa", "paper"), ("cora/dfa", "smoke"), ("pubmed/dfa", "mini")):
        assert cells[name].runs_at(scale) == (cells[name].overrides,)


def test_what_was_taken_over_from_another_table_may_be_without_effect(tmp_path: Path) -> None:
    own = ["base: table_4", "reference: ''", "rows: [dfa]", "row: '{rule}'", "data: cora_links"]
    overrides = "overrides: [task=cora_links, model=gae, 'rule={rule}']\n"
    (tmp_path / "table_9.yaml").write_text("\n".join([*own, overrides]))
    overrides_for, names = {"cora/*": ["optimizer.lr=1"]}, {"task": {"cora": "cora"}}
    folder = edited(tmp_path, overrides_for=overrides_for, names=names)
    assert [cell.row for cell in load_spec("table_9", folder=folder).cells] == ["dfa", "shallow"]
