"""What is planned: the scale and why, what is missing and why, what is left to do and in which order."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from benchmarks.config import Config, identity
from benchmarks.errors import ConfigError
from benchmarks.run.execute import execute
from benchmarks.run.records import RunFolder
from benchmarks.tables import missing_data as missing_data_module
from benchmarks.tables import plan as plan_module
from benchmarks.tables.archive import Archive, ArchivedRun
from benchmarks.tables.cells import Cell
from benchmarks.tables.missing_data import missing_data
from benchmarks.tables.plan import AUTO_HOURS, make_plan
from tests.conftest import Toys
from tests.helpers.records import whole_record

_CELLS = (
    Cell("bp", "", ("task=toy", "model=toy_mlp", "rule=bp", "task.source=real")),
    Cell("dfa", "", ("task=toy", "model=toy_mlp", "rule=dfa", "task.source=real")),
    Cell("elsewhere", "", ("task=toy_loss", "model=toy_mlp", "rule=bp", "task.source=real")),
)


@dataclass(frozen=True)
class Target:
    """A table of three cells, the first of which takes longest."""

    name: str = "table_0"
    heading: str = "Table 0"
    cells: tuple[Cell, ...] = _CELLS
    per_scale: Mapping[str, int] = field(default_factory=lambda: {"paper": 3, "mini": 2, "smoke": 1})
    hours: float = 0.01
    stand_in: bool = True
    weights: bool = False
    once: str = ""

    def seeds(self, cell: Cell, scale: str) -> int:
        return 1 if cell.name == self.once else self.per_scale[scale]

    def cost(self, cell: Cell, scale: str, stand_in: bool = False, device: str = "cpu") -> float:
        return (3600 * self.hours if scale == "paper" else 60.0) / (1 + self.cells.index(cell))


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Names of the tasks that have no data here."""
    names: set[str] = set()

    def missing(config: Config) -> str:
        return f"no {config.task.name} here" if config.task.name in names else ""

    monkeypatch.setattr(plan_module, "missing_data", missing)
    return names


def test_a_scale_without_runs_is_refused_and_auto_takes_another(toys: Toys, without: set[str]) -> None:
    cells = tuple(replace(cell, only=(("paper", ()), ("mini", ("rule=dfa",)))) for cell in _CELLS)
    plan = make_plan(Target(cells=cells), "auto", 1, toys.overrides[3:], 1)
    assert (plan.scale, plan.why) == ("mini", "its only scale")
    assert [run.cell.row for run in plan.runs] == ["dfa"]
    assert "elsewhere" not in plan.describe(1)
    with pytest.raises(ConfigError, match="Table 0 has no runs at scale paper"):
        make_plan(Target(cells=cells), "paper", 1, toys.overrides[3:], 1)


def test_auto_takes_the_paper_where_data_and_time_allow(toys: Toys, without: set[str]) -> None:
    plan = make_plan(Target(), "auto", None, toys.overrides[3:], 1)
    assert plan.scale == "paper"
    assert plan.why == "data for toy, toy_loss is here and time allows"
    assert len(plan.runs) == 9 and {run.config.scale for run in plan.runs} == {"paper"}
    assert sorted(run.config.seed for run in plan.runs) == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_auto_says_where_all_but_what_lacks_data_is_committed(toys: Toys, without: set[str]) -> None:
    without.add("toy_loss")
    settings = toys.overrides[3:]
    paper = make_plan(Target(), "paper", None, settings, 1)
    runs = {identity(run.config): ArchivedRun({}, whole_record(), []) for run in paper.runs if not run.missing}
    archive = Archive("table_0", {"scale": "paper", "why": ""}, runs)
    plan = make_plan(Target(), "auto", None, settings, 1, archive)
    assert (plan.scale, plan.why, plan.to_do) == ("paper", "that of the committed records", [])


@pytest.mark.parametrize(("here", "scale"), [(False, "mini"), (True, "paper")])
def test_auto_leaves_the_committed_scale_where_rules_that_were_added_have_no_data(
    toys: Toys, without: set[str], here: bool, scale: str
) -> None:
    without.update(() if here else ("toy_loss",))
    settings = [*toys.overrides[3:], "run.data_dir=/no/data"]
    paper = make_plan(Target(cells=_CELLS[:2]), "paper", None, settings, 1)
    runs = {identity(run.config): ArchivedRun({}, whole_record(), []) for run in paper.runs}
    archive = Archive("table_0", {"scale": "paper", "why": ""}, runs)
    target = Target(cells=(*_CELLS[:2], replace(_CELLS[2], extra_rule="bp")))
    plan = make_plan(target, "auto", None, settings, 1, archive)
    why = "data for toy_loss is here and time allows"
    assert (plan.scale, plan.why) == (scale, why if here else "no data of the paper in '/no/data'; SCALE=paper insists")
    assert [run.missing for run in plan.to_do if run.cell == target.cells[2]] == [""] * (3 if here else 2)


def test_auto_takes_the_paper_with_a_part_of_the_data_and_says_what_is_missing(toys: Toys, without: set[str]) -> None:
    without.add("toy_loss")
    plan = make_plan(Target(), "auto", None, toys.overrides[3:], 1)
    assert (plan.scale, plan.why) == ("paper", "data for toy is here and time allows")
    assert [run.missing for run in plan.runs] == [""] * 6 + ["no toy_loss here"] * 3
    assert len(plan.to_do) == 6
    assert {run.config.task.source for run in plan.runs} == {"real"}
    lines = plan.describe(1).splitlines()
    assert lines[1].endswith("0 of 3 done, 3 to run (about 1 min 48 s)")
    # 36 s for each seed of the first cell, a half and a third of it for the others.
    assert lines[3].endswith("0 of 3 done, 3 wait for data (about 36 s)")
    assert lines[4] == "  missing: no toy_loss here"
    assert lines[5].startswith("6 runs to do, about 2 min 42 s") and lines[5].endswith(
        "; 3 wait for data, about 36 s of one worker"
    )


def test_auto_without_data_takes_stand_ins_at_the_mini_scale(toys: Toys, without: set[str]) -> None:
    without.update(("toy", "toy_loss"))
    plan = make_plan(Target(), "auto", None, [*toys.overrides[3:], "run.data_dir=/no/data"], 1)
    assert plan.scale == "mini"
    assert plan.why == "no data of the paper in '/no/data'; SCALE=paper insists"
    assert len(plan.to_do) == 6
    assert {(run.config.task.source, run.config.scale) for run in plan.runs} == {("stand_in", "mini")}
    assert "stand-in" in plan.describe(1).splitlines()[1]


def test_auto_counts_the_time_that_is_left_with_all_workers(toys: Toys, without: set[str]) -> None:
    # Three seeds of hours·(1 + 1/2 + 1/3) = 5.5 hours in all.
    slow = Target(hours=1.0)
    assert AUTO_HOURS == 3.0
    reduced = make_plan(slow, "auto", None, toys.overrides[3:], 1)
    assert (reduced.scale, reduced.why) == ("mini", "scale paper would take 6 h; SCALE=paper insists")
    assert {run.config.task.source for run in reduced.runs} == {"real"}
    assert make_plan(slow, "auto", None, toys.overrides[3:], 2).scale == "paper"
    insisted = make_plan(slow, "paper", None, toys.overrides[3:], 1)
    assert (insisted.scale, insisted.why) == ("paper", "as asked")
    assert insisted.seconds(1) == pytest.approx(5.5 * 3600) and insisted.seconds(2) == pytest.approx(2.75 * 3600)


def test_recorded_runs_cost_nothing_and_are_not_run_again(
    toys: Toys, without: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = toys.overrides[3:]
    before = make_plan(Target(), "mini", None, settings, 1)
    execute(before.runs[0].config)
    monkeypatch.setenv("TOY_FAULT", "nan@1")
    execute(before.runs[2].config)
    plan = make_plan(Target(), "mini", None, settings, 1)
    assert [run.to_do for run in plan.runs] == [False, True, False, True, True, True]
    assert [run.seconds for run in plan.runs] == [0, 60, 0, 30, 20, 20]
    assert [run.seconds for run in plan.to_do] == [60, 30, 20, 20]  # the longest first
    assert "1 of 2 done, 1 to run (about 1 min 0 s)" in plan.describe(1)
    assert "1 of 2 done, 1 to run" in plan.describe(
        1
    ) and "0 of 2 done, 1 failed or diverged, 1 to run" in plan.describe(1)
    again = make_plan(Target(), "mini", None, [*settings, "run.retry=true"], 1)
    assert [run.seconds for run in again.runs] == [0, 60, 30, 30, 20, 20]
    assert [run.to_do for run in again.runs] == [False, True, True, True, True, True]
    without.add("toy")
    assert [run.missing for run in make_plan(Target(), "paper", 1, settings, 1).runs][:2] == ["no toy here"] * 2


def test_a_run_that_is_recorded_needs_no_data(toys: Toys, without: set[str]) -> None:
    execute(make_plan(Target(), "paper", 1, toys.overrides[3:], 1).runs[0].config)
    without.add("toy")
    plan = make_plan(Target(), "paper", 1, toys.overrides[3:], 1)
    assert [run.missing for run in plan.runs] == ["", "no toy here", ""]


def test_a_run_that_serves_two_cells_is_run_once(toys: Toys, without: set[str]) -> None:
    twice = Target(cells=(_CELLS[0], Cell("again", "", _CELLS[0].overrides)))
    plan = make_plan(twice, "mini", None, toys.overrides[3:], 1)
    assert len(plan.runs) == 4 and len(plan.to_do) == 2


def test_a_run_that_serves_two_cells_is_counted_once(toys: Toys, without: set[str]) -> None:
    twice = Target(cells=(_CELLS[0], replace(_CELLS[0], row="again"), _CELLS[2], replace(_CELLS[2], row="once more")))
    without.add("toy_loss")
    settings = toys.overrides[3:]
    recorded = [run.config for run in make_plan(twice, "paper", None, settings, 1).runs if not run.missing]
    runs = {identity(config): ArchivedRun({}, whole_record(), []) for config in recorded}
    archive = Archive("table_0", {"scale": "paper", "why": ""}, runs)
    total = make_plan(twice, "paper", None, settings, 1, archive).describe(1).splitlines()[-1]
    assert "; 3 wait for data, about 27 s of one worker; 3 runs from committed records" in total


def test_smoke_leaves_tasks_that_are_not_the_suites_alone(toys: Toys, without: set[str]) -> None:
    plan = make_plan(Target(), "smoke", 1, toys.overrides[3:], 1)
    assert {run.config.task.source for run in plan.runs} == {"real"}


def test_smoke_always_takes_stand_ins_and_seeds_can_be_chosen(
    toys: Toys, without: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(missing_data_module, "DATA_CHECKS", ("toy", "toy_loss"))
    plan = make_plan(Target(), "smoke", 4, toys.overrides[3:], 1)
    assert len(plan.runs) == 12 and {run.config.task.source for run in plan.runs} == {"stand_in"}
    assert {run.config.run.wandb_group for run in plan.runs} == {"table_0"}
    assert len({run.config.run.wandb_name for run in plan.runs}) == 12, "also where a cell has several runs"
    assert len({RunFolder.of(run.config).path for run in plan.runs}) == 12


@pytest.mark.parametrize(
    ("scale", "seeds", "message"),
    [("huge", None, "unknown scale 'huge'; known: auto, paper, mini, smoke"), ("mini", 0, "seeds must be at least 1")],
)
def test_bad_requests(toys: Toys, scale: str, seeds: int | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_plan(Target(), scale, seeds, toys.overrides[3:], 1)


def test_families_say_which_data_are_missing(toys: Toys, tmp_path: Path) -> None:
    pytest.importorskip("torch_geometric")
    graphs = toys.config("task.name=cora", "task.family=graphs", "task.source=real", f"run.data_dir={tmp_path}")
    assert "$DFA_DATA_DIR/planetoid/Cora/raw" in missing_data(graphs) and "\n" not in missing_data(graphs)
    assert str(tmp_path) not in missing_data(graphs), "a table would print a folder of this machine"
    graphs.run.data_dir = "elsewhere"
    assert "elsewhere/planetoid/Cora/raw" in missing_data(graphs)
    graphs.run.download = True
    assert missing_data(graphs) == ""
    assert missing_data(toys.config("task.source=real")) == ""


def test_cells_may_differ_in_their_number_of_seeds(toys: Toys, without: set[str]) -> None:
    plan = make_plan(Target(once="dfa"), "mini", None, toys.overrides[3:], 1)
    assert [sum(run.cell.name == name for run in plan.runs) for name in ("bp", "dfa", "elsewhere")] == [2, 1, 2]


def test_a_target_may_refuse_stand_ins(toys: Toys, without: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(missing_data_module, "DATA_CHECKS", ("toy", "toy_loss"))
    without.add("toy")
    plan = make_plan(Target(stand_in=False), "mini", 1, toys.overrides[3:], 1)
    assert [run.missing for run in plan.runs] == ["no toy here", "no toy here", ""]
    assert {run.config.task.source for run in plan.runs} == {"real"} and len(plan.to_do) == 1
    smoke = make_plan(Target(stand_in=False), "smoke", 1, toys.overrides[3:], 1)
    assert {run.config.task.source for run in smoke.runs} == {"stand_in"} and len(smoke.to_do) == 3


def test_each_reason_for_missing_data_is_told_once(toys: Toys, without: set[str]) -> None:
    without.update(("toy", "toy_loss"))
    lines = make_plan(Target(), "paper", None, toys.overrides[3:], 1).describe(1).splitlines()
    assert [line for line in lines if "missing" in line] == ["  missing: no toy here", "  missing: no toy_loss here"]


def test_only_the_cells_asked_for_are_run(toys: Toys, without: set[str]) -> None:
    plan = make_plan(Target(), "mini", None, (), jobs=1)
    some = plan.with_cells(["dfa", "else*"])
    assert [run.cell.name for run in some.to_do] == ["dfa"] * 2 + ["elsewhere"] * 2
    assert some.runs == plan.runs, "the table shows what is recorded of the others"
    text = some.describe(1)
    assert "\n  1 other cell left as it is\n4 runs to do, about 1 min 40 s" in text
    assert "  bp " not in text and text.count("to run") == 2 and "other cell" not in plan.describe(1)
    without.add("toy")
    waiting = make_plan(Target(stand_in=False), "mini", None, (), jobs=1).with_cells(["elsewhere"])
    assert "wait for data" not in waiting.describe(1)
    assert plan.with_cells([]) == plan
    with pytest.raises(ConfigError, match=r"^--cells: no cell matches 'bp:gcn'; rows: bp, dfa, elsewhere$"):
        plan.with_cells(["dfa", "bp:gcn"])
