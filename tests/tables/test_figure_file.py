"""Figure files that cannot be used, and functions that cannot draw: told in one line."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml
from matplotlib.figure import Figure

from benchmarks.commands import reproduce
from benchmarks.config import Config
from benchmarks.errors import ConfigError
from benchmarks.registry import FIGURES
from benchmarks.tables.figure import DrawingError, FigureSpec, draw_figure, load_figure
from tests.conftest import Command, Toys

_CONTENT = {
    "title": "A title",
    "draw": "toy_curve",
    "panels": {"one": ["task=toy", "rule=bp"]},
    "cost_seconds": {"paper": 5, "mini": 3.5, "smoke": 1},
}


def _load(folder: Path, content: object) -> FigureSpec:
    (folder / "figure_9.yaml").write_text("" if content is None else yaml.safe_dump(content))
    return load_figure("figure_9", folder)


@pytest.mark.parametrize("entry", ["title", "draw", "panels", "cost_seconds"])
def test_an_incomplete_figure_file_is_named(tmp_path: Path, entry: str) -> None:
    with pytest.raises(ConfigError, match=f"figure_9.yaml is incomplete: '{entry}' is missing"):
        _load(tmp_path, {key: value for key, value in _CONTENT.items() if key != entry})


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"by_name_onyl": True}, ": unknown key 'by_name_onyl'; did you mean 'by_name_only'?"),
        ({"panels": {}}, ": panels must map labels to runs"),
        ({"panels": [1]}, ": panels must map labels to runs"),
        ({"panels": {1: ["task=toy"]}}, ": the label of panel 1 must be text, in quotes"),
        ({"panels": {"bp": ["task=toy", 3]}}, ": panel 'bp' must be a list of overrides or a cell of the table, got"),
        ({"panels": {"bp": "gcn/bp:cora"}}, ": panel 'bp': 'gcn/bp:cora' is a cell, but the file names no table"),
        ({"panels": {"bp": ["task=toy", "seed=4"]}}, ": panel 'bp': 'seed=4' cannot count"),
        ({"panels": {"bp": ["task=toy", "scale=mini"]}}, ": panel 'bp': 'scale=mini' cannot count"),
        ({"stand_in": "maybe"}, ": Value 'maybe' is not a valid bool"),
        ({"table": "table_none"}, "unknown table 'table_none'"),
        ({"only": {"large": ["rule=bp"]}}, ": only: unknown scale 'large'"),
        ({"only": {"mini": ["rule=dfa"]}}, ": only: no panel has 'rule=dfa'"),
        ({"cost_seconds": {"paper": 5, "mini": 3}}, " is incomplete: cost_seconds has no 'smoke'"),
        (
            {"cost_seconds": {"paper": 5, "mini": -3, "smoke": 1}},
            ": cost_seconds of 'mini' must be a number of seconds",
        ),
        ({"cost_seconds": {"paper": 5, "mini": "few", "smoke": 1}}, ": Value 'few'"),
    ],
)
def test_a_figure_file_that_cannot_be_used_is_refused_in_one_line(
    tmp_path: Path, changes: dict[str, object], told: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        _load(tmp_path, _CONTENT | changes)
    assert told in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(("content", "told"), [(None, "is empty"), ([1], "is not a mapping of keys to values")])
def test_a_file_without_keys_is_refused(tmp_path: Path, content: object, told: str) -> None:
    with pytest.raises(ConfigError, match=f"^figure file figure_9.yaml {told}$"):
        _load(tmp_path, content)


def test_no_in_quotes_is_no(tmp_path: Path) -> None:
    assert not _load(tmp_path, _CONTENT | {"stand_in": "false"}).stand_in


def test_rules_are_no_panels(command: Command) -> None:
    code, _, err = command(reproduce.main, "figure_2", "--rules", "fa", "--dry", "--scale", "smoke")
    assert code == 2 and err == "error: --rules adds rows to tables; there is none among figure_2\n"


def _fails(runs: Mapping[str, Config]) -> Figure:
    raise KeyError("valid/acuracy")


def _nothing(runs: Mapping[str, Config]) -> None:
    """Forgets to return the figure."""


def _unprintable(runs: Mapping[str, Config]) -> Figure:
    figure = Figure(figsize=(2, 1))
    figure.text(0, 0, "$\\frac$")  # which is found out when it is written
    return figure


@pytest.mark.parametrize(
    ("draw", "told"),
    [
        (_fails, "'toy_curve' fails with KeyError: 'valid/acuracy'"),
        (_nothing, "'toy_curve' gives NoneType instead of a matplotlib Figure"),
        (_unprintable, "'toy_curve' fails with ValueError: "),
    ],
)
def test_a_function_that_cannot_draw_is_named(
    toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, draw: object, told: str
) -> None:
    monkeypatch.setitem(FIGURES._factories, "toy_curve", draw)
    target = tmp_path / "figures" / "figure_9.png"
    with pytest.raises(DrawingError) as refused:
        draw_figure(_load(tmp_path, _CONTENT), {"one": toys.config()}, target)
    assert str(refused.value).startswith(f"figure_9 cannot be drawn: {told}") and "\n" not in str(refused.value)
    assert not target.exists()
