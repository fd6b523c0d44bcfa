"""Figure files, and drawing without leaving half a picture."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from benchmarks.commands import reproduce
from benchmarks.config import Config
from benchmarks.errors import ConfigError, ResultsError
from benchmarks.registry import FIGURES
from benchmarks.run.records import RunFolder
from benchmarks.tables import targets
from benchmarks.tables.cells import Cell
from benchmarks.tables.figure import FigureSpec, draw_figure, known_figures, load_figure
from benchmarks.tables.figure_file import FigureFile
from tests.conftest import TOY, Command, Toys

_FILE = """
title: A title
draw: toy_curve
panels: {one: [task=toy, rule=bp], two: [task=toy, rule=dfa]}
cost_seconds: {paper: 5, mini: 3, smoke: 1}
"""


def _draw(runs: Mapping[str, Config]) -> Figure:
    figure = Figure(figsize=(2, 1))
    for panel, config in runs.items():
        figure.text(0.1, 0.1, f"{panel} {config.rule.name}")
    return figure


@pytest.fixture
def _toy_curve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FIGURES._factories, "toy_curve", _draw)


def _spec() -> FigureSpec:
    panels = {rule: ("task=toy", "model=toy_mlp", f"rule={rule}", "trainer.epochs=1") for rule in ("bp", "dfa")}
    cells = tuple(Cell(label, "", overrides) for label, overrides in panels.items())
    cost = {"paper": 1.0, "mini": 1.0, "smoke": 1.0}
    return FigureSpec("figure_2", FigureFile("Toys", "toy_curve", {}, cost), cells)


def test_a_figure_file_becomes_a_plan(tmp_path: Path) -> None:
    (tmp_path / "figure_a1.yaml").write_text(_FILE)
    assert known_figures(tmp_path) == ["figure_a1"]
    spec = load_figure("figure_a1", tmp_path)
    assert (spec.heading, spec.file.draw, spec.cost(spec.cells[0], "mini")) == ("Figure A1", "toy_curve", 3)
    assert [(cell.row, cell.rule) for cell in spec.cells] == [("one", "bp"), ("two", "dfa")]


def test_a_panel_may_name_a_cell_of_a_table(tmp_path: Path) -> None:
    content = _FILE.replace("one: [task=toy, rule=bp]", 'one: "gcn/dfa:cora"') + "table: table_3\n"
    (tmp_path / "figure_a1.yaml").write_text(content)
    spec = load_figure("figure_a1", tmp_path)
    assert spec.cells[0].overrides == ("task=cora", "model=gcn", "rule=dfa") and not spec.file.by_name_only
    (tmp_path / "figure_a1.yaml").write_text(content.replace("gcn/dfa", "gcn/none"))
    with pytest.raises(ConfigError, match="panel 'one': 'gcn/none:cora' is not a cell of one run; known: cheb/bp:cora"):
        load_figure("figure_a1", tmp_path)


def test_panels_may_belong_to_some_scales(tmp_path: Path) -> None:
    (tmp_path / "figure_a1.yaml").write_text(f"{_FILE}only: {{mini: [rule=dfa]}}\n")
    one, two = load_figure("figure_a1", tmp_path).cells
    assert (one.runs_at("mini"), two.runs_at("mini")) == ((), (two.overrides,))
    assert one.runs_at("paper") == (one.overrides,)


def test_a_drawing_that_is_not_there_is_told_before_anything_is_run(
    toys: Toys, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets, "load_figure", lambda name: _spec())
    code, _, err = command(reproduce.main, *_figure_2(toys))
    assert code == 2 and "figure file figure_2.yaml: draw: unknown figure 'toy_curve'; known: " in err
    assert not toys.results.exists()


def _figure_2(toys: Toys) -> list[str]:
    arguments = ["figure-2", "--scale", "mini", "--results", str(toys.results), "--jobs", "1", "--seeds", "3"]
    return [*arguments, "--set", f"plugins=[{TOY}]", "--set", "run.wandb=disabled"]


def test_an_unknown_figure_is_named() -> None:
    with pytest.raises(ConfigError, match=r"unknown figure 'figure_9'; known: .*figure_2"):
        load_figure("figure_9")


def test_a_figure_is_drawn_the_same_every_time_and_never_by_half(
    toys: Toys, tmp_path: Path, _toy_curve: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = {"left": toys.config(), "right": toys.config("rule=dfa")}
    target = tmp_path / "figures" / "figure_2.png"
    draw_figure(_spec(), runs, target)
    first = target.read_bytes()
    assert first.startswith(b"\x89PNG")
    draw_figure(_spec(), runs, target)
    assert target.read_bytes() == first

    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", full)
    with pytest.raises(ResultsError, match=r"cannot write .*figure_2.png: No space left on device"):
        draw_figure(_spec(), runs, target)
    assert target.read_bytes() == first and list(target.parent.iterdir()) == [target]


def test_the_command_runs_the_panels_and_draws(
    toys: Toys, command: Command, _toy_curve: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets, "load_figure", lambda name: _spec())
    code, out, err = command(reproduce.main, *_figure_2(toys))
    assert (code, err) == (0, "") and out.startswith("Figure 2: scale mini (as asked)")
    assert out.count(" of 1 done") == 2, "a panel shows one run, however many seeds a table has"
    assert (toys.results / "figures" / "figure_2.png").exists()

    weights = next((toys.results / "runs").rglob("last.safetensors"))
    weights.unlink()
    code, out, _ = command(reproduce.main, *_figure_2(toys))
    assert code == 0 and "0 runs to do" in out and not weights.exists()
    monkeypatch.setattr(targets, "load_figure", lambda name: replace(_spec(), file=replace(_spec().file, weights=True)))
    code, out, _ = command(reproduce.main, *_figure_2(toys))
    assert code == 0 and "1 runs to do" in out, "a figure of weights was to be drawn without them"
    assert weights.exists() and len(list((toys.results / "superseded").rglob("result.json"))) == 1

    # A record from before data and code were noted; another process may be about to make the weights.
    weights.unlink()
    result = weights.with_name("result.json")
    result.write_text(
        json.dumps({key: value for key, value in json.loads(result.read_text()).items() if key != "inputs"})
    )
    (plan,) = targets.Plans(
        ["figure_2"], "mini", None, [], [item for item in toys.overrides if item[:4] in ("plug", "run.")]
    )
    with RunFolder(result.parent).locked():
        plan.set_aside_without_weights()
        assert result.exists()
    assert command(reproduce.main, *_figure_2(toys))[0] == 0
    assert weights.exists() and len(list((toys.results / "superseded").rglob("result.json"))) == 2

    monkeypatch.setenv("TOY_FAULT", "nan@1")
    code, _, err = command(reproduce.main, *_figure_2(toys), "--set", "optimizer.lr=0.5")
    assert code == 2 and "cannot be drawn, 2 of its runs are missing" in err
