"""Rows and columns that are added for a rule: they train it, or are refused."""

from pathlib import Path

import pytest

from benchmarks.errors import ConfigError
from benchmarks.tables.cells import Cell
from benchmarks.tables.spec import load_spec
from tests.helpers.tables import edited


def _own(folder: Path, **changes: object) -> Path:
    own = {"data": "cora", "rows": ["gcn", "cheb"], "row": "{row}", "overrides": ["task=cora", "model={row}"]}
    return edited(folder, "table_4", ("reference",), **{**own, **changes})


def _added(folder: Path, *rules: str) -> dict[str, Cell]:
    before = load_spec("table_4", folder=folder).cells
    return {cell.name: cell for cell in load_spec("table_4", rules, folder).cells if cell not in before}


def test_a_table_that_leaves_the_rule_as_configured_gets_rows_of_the_rule_asked_for(tmp_path: Path) -> None:
    folder = _own(tmp_path, controls="shallow")
    controls = [cell for cell in load_spec("table_4", folder=folder).cells if cell.control]
    assert [cell.name for cell in controls] == ["gcn/shallow", "cheb/shallow"]
    assert controls[0].runs == (("task=cora", "model=gcn", "rule=shallow"),)
    added = _added(folder, "fa", "drtp")
    assert list(added) == ["gcn/fa", "cheb/fa", "gcn/drtp", "cheb/drtp"]
    assert added["gcn/fa"].overrides == ("task=cora", "model=gcn", "rule=fa")
    assert {cell.extra_rule for cell in added.values()} == {"fa", "drtp"}


def test_columns_that_are_rules_get_one_more(tmp_path: Path) -> None:
    templates = ["task=cora", "model={row}", "rule={column}"]
    folder = _own(tmp_path, columns=["bp", "dfa", "shallow"], overrides=templates)
    added = _added(folder, "fa")
    assert list(added) == ["gcn:fa", "cheb:fa"]
    assert added["cheb:fa"].overrides == ("task=cora", "model=cheb", "rule=fa")
    assert load_spec("table_4", ["fa"], folder).columns == ("bp", "dfa", "shallow", "fa")


@pytest.mark.parametrize("asked", [{"controls": "shallow"}, {}])
@pytest.mark.parametrize(
    ("changes", "setting"),
    [
        ({"members": {"*": ["rule=dfa", "rule=fa"]}}, "rule=dfa"),
        ({"overrides": ["task=cora", "model={row}", "rule.name=dfa"]}, "rule.name=dfa"),
        ({"rows": ["bp"], "overrides": ["rule={row}"], "overrides_for": {"*": ["rule=dfa"]}}, "rule=dfa"),
    ],
)
def test_a_rule_that_could_not_count_is_refused(
    tmp_path: Path, changes: dict[str, object], setting: str, asked: dict[str, str]
) -> None:
    rules = [] if asked else ["drtp"]
    with pytest.raises(ConfigError, match=f"table_4.yaml: '{setting}' keeps .* from training rule") as refused:
        load_spec("table_4", rules, _own(tmp_path, **changes, **asked))
    assert "\n" not in str(refused.value)


def test_a_row_may_have_another_word_for_its_rule(tmp_path: Path) -> None:
    words = {"row": {"damped": "identity"}}
    folder = _own(tmp_path, rows=["bp", "dfa"], overrides=["task=cora", "model=gcn", "rule={row}"], names=words)
    assert _added(folder, "damped")["damped"].rule == "identity"
