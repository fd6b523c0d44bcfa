"""Table files: the cells they yield, compared with the published tables and with lists written here."""

from pathlib import Path

import pytest
import yaml

from benchmarks.config import compose_config, resolve
from benchmarks.errors import ConfigError
from benchmarks.tables.published import known_references, load_reference
from benchmarks.tables.schema import known_tables
from benchmarks.tables.spec import TableSpec, load_spec
from benchmarks.utils.paths import config_files
from tests.helpers.tables import cell_of, edited

MODELS = ("cheb", "gcn", "spline", "gat", "dna")
TASKS = ("cora", "citeseer", "pubmed")
ADDED = {
    *((f"spline_normalised/{rule}", task) for rule in ("bp", "dfa") for task in ("cora", "citeseer")),
    *(("dna_log_softmax/dfa", task) for task in TASKS),
}


def test_every_published_table_has_a_file() -> None:
    assert set(known_tables()) >= set(known_references())


@pytest.mark.parametrize("name", known_references())
def test_every_published_number_has_a_cell(name: str) -> None:
    spec, reference = load_spec(name), load_reference(name)
    places = {(cell.row, cell.column) for cell in (*spec.cells, *spec.quoted) if cell.reference == name}
    assert places == {(row, column) for row, column, _ in reference.values}


@pytest.mark.parametrize("name", known_tables())
def test_every_runnable_cell_names_task_model_and_rule_and_has_a_cost(name: str) -> None:
    spec = load_spec(name, extra_rules=["mine"])
    assert len({cell.name for cell in spec.cells}) == len(spec.cells)
    for cell in spec.cells:
        for run in cell.runs:
            assert {"task", "model", "rule"} <= {override.split("=")[0] for override in run}
        assert all(spec.cost(cell, scale) > 0 for scale in ("paper", "mini", "smoke"))


def test_table_3() -> None:
    spec = load_spec("table_3")
    proper = [cell for cell in spec.cells if not cell.control]
    wanted = {(f"{model}/{rule}", task) for model in MODELS for rule in ("bp", "dfa") for task in TASKS}
    assert {(cell.row, cell.column) for cell in proper} == wanted | ADDED
    assert {(cell.row, cell.column) for cell in spec.cells if cell.control} == {
        *((f"{model}/shallow", task) for model in MODELS for task in TASKS),
        *(("spline_normalised/shallow", task) for task in ("cora", "citeseer")),
    }
    cell = cell_of(spec, "gcn/dfa", "cora")
    assert cell.overrides == ("task=cora", "model=gcn", "rule=dfa")
    assert cell.runs == (cell.overrides,)
    assert (cell.rule, cell.data, cell.name) == ("dfa", "cora", "gcn/dfa:cora")
    assert spec.heading == "Table 3"
    control = cell_of(spec, "gat/shallow", "pubmed")
    assert control.overrides == ("task=pubmed", "model=gat", "rule=shallow")
    assert spec.published(control, "accuracy_percent") == 67.8
    assert spec.cells.index(control) > max(spec.cells.index(cell) for cell in proper)


def test_tolerances_of_table_3() -> None:
    spec = load_spec("table_3")
    bp = spec.tolerance(cell_of(spec, "gcn/bp", "cora"), "accuracy_percent")
    dfa = spec.tolerance(cell_of(spec, "gcn/dfa", "cora"), "accuracy_percent")
    assert bp is not None and (bp.points, bp.or_better) == (2.0, False)
    assert dfa is not None and (dfa.points, dfa.or_better) == (2.5, True)
    assert spec.tolerance(cell_of(spec, "gcn/shallow", "cora"), "accuracy_percent") is None


def test_table_4_has_a_control_without_published_numbers() -> None:
    spec = load_spec("table_4")
    control = cell_of(spec, "pubmed/shallow")
    assert control.control and spec.published(control, "auc") is None
    assert control.overrides == ("task=pubmed_links", "model=gae", "rule=shallow")
    assert len(spec.cells) == 9


def test_table_a2_is_dfa_on_cora() -> None:
    spec = load_spec("table_a2")
    assert [cell.row for cell in spec.cells] == list(MODELS)
    assert cell_of(spec, "dna").overrides == ("task=cora", "model=dna", "rule=dfa")
    assert {name: metric.record for name, metric in spec.metrics.items()} == {
        "alignment_mean": "alignment/mean",
        "alignment_std": "alignment/std",
        "idle": "alignment/idle",
    }
    assert spec.added_metrics == ("idle",)
    assert spec.tolerance(cell_of(spec, "dna"), "alignment_std") is None


def test_table_5_takes_optimiser_and_schedule_from_the_column() -> None:
    spec = load_spec("table_5")
    wanted = ("task=wikitext103", "model=transformer_micro", "rule=dfa", "schedule=plateau")
    assert cell_of(spec, "dfa_micro", "lr_schedule").overrides == (*wanted, "optimizer.options.betas=[0.9,0.999]")
    assert spec.published(cell_of(spec, "shallow", "baseline"), "perplexity") == 428.0


@pytest.mark.parametrize("row", ["dfa_macro", "dfa_micro", "bp"])
@pytest.mark.parametrize(
    ("column", "schedule", "lr", "beta2"),
    [
        ("baseline", "noam", 1.0, 0.98),
        ("adam", "constant", 5e-5, 0.98),
        ("beta2_0999", "constant", 5e-5, 0.999),
        ("lr_schedule", "plateau", 1e-4, 0.999),
    ],
)
def test_columns_of_table_5_are_the_published_optimisers(
    row: str, column: str, schedule: str, lr: float, beta2: float
) -> None:
    (overrides,) = cell_of(load_spec("table_5"), row, column).runs
    config = resolve(compose_config(list(overrides)))
    if (row, column) == ("bp", "beta2_0999"):
        schedule, lr = "noam", 1.0  # the paper's backpropagation keeps its schedule
    assert config.optimizer.name == "adam" and config.optimizer.options == {"betas": [0.9, beta2], "eps": 1e-9}
    assert (config.schedule.name, config.optimizer.lr) == (schedule, lr)
    if schedule == "noam":
        assert config.schedule.options == {"width": 512, "warmup": 4000}
    if schedule == "plateau":
        assert config.schedule.options == {"factor": 0.2, "patience": 1}
    assert (config.trainer.clip_norm, config.trainer.epochs, config.trainer.patience) == (0.5, 20, 5)


def test_table_5_adds_what_the_paper_lacks() -> None:
    spec = load_spec("table_5")
    dfa_columns = {cell.column for cell in spec.cells if cell.row == "dfa_macro"}
    assert dfa_columns == {"baseline", "adam", "beta2_0999", "lr_schedule", "one_cycle"}
    optimisers = [tuple(o for o in run if o.startswith(("schedule", "optimizer"))) for run in _runs(spec, "dfa_macro")]
    for row in ("bp", "shallow", "dfa_macro_exact", "dfa_micro_exact", "exact_control"):
        rows = (row, "bp_constant") if row == "bp" else (row,)
        same = [tuple(o for o in run if o.startswith(("schedule", "optimizer"))) for run in _runs(spec, *rows)]
        assert {frozenset(o) for o in optimisers} <= {frozenset(o) for o in same}, f"{row} lacks a schedule of DFA"
    assert {cell.row for cell in spec.cells if cell.control} == {"shallow", "exact_control"}
    added = [cell for cell in spec.cells if not cell.reference]
    assert len(added) == len(spec.cells) - 11
    assert all(spec.published(cell, "perplexity") is None for cell in added)
    assert spec.rows[:3] == ("dfa_macro", "dfa_micro", "bp") and spec.columns[-1] == "one_cycle"


def _runs(spec: TableSpec, *rows: str) -> list[tuple[str, ...]]:
    return [run for cell in spec.cells if cell.row in rows for run in cell.runs]


def test_a_table_can_start_from_another_and_compare_nothing() -> None:
    base, other = load_spec("table_5"), load_spec("table_5_wikitext2")
    assert [cell.name for cell in other.cells] == [cell.name for cell in base.cells]
    own, shared = ("task=wikitext2", "run.alignment=evaluations"), base.cells[0].overrides[1:]
    assert other.cells[0].overrides == (*own, *shared)
    assert other.heading == "Table 5 on WikiText-2" and base.heading == "Table 5"
    assert all(cell.reference == "" for cell in other.cells) and not other.stand_in and base.stand_in


def test_seeds_may_differ_between_cells(tmp_path: Path) -> None:
    counts = {"mini": {"*/dfa": 5, "cora/*": 7}}
    spec = load_spec("table_4", folder=edited(tmp_path, seeds_for=counts))
    seeds = {cell.name: spec.seeds(cell, "mini") for cell in spec.cells if not cell.control}
    assert seeds == {f"{t}/{r}": 5 if r == "dfa" else 7 if t == "cora" else 3 for t in TASKS for r in ("bp", "dfa")}
    assert {spec.seeds(cell, "paper") for cell in spec.cells} == {10}


def test_metrics_may_be_added_but_none_left_out(tmp_path: Path) -> None:
    metrics = yaml.safe_load(config_files("table")["table_4"].read_text())["metrics"]
    more = {"loss": {"record": "test/loss", "label": "loss"}} | metrics
    spec = load_spec("table_4", folder=edited(tmp_path, metrics=more))
    assert tuple(spec.metrics) == ("auc", "ap", "loss") and spec.added_metrics == ("loss",)


def test_numbers_that_the_paper_quotes_are_never_run() -> None:
    spec = load_spec("table_a5")
    assert {cell.column for cell in spec.quoted} == {"nv/bp", "srn/bp", "llff/bp"}
    ours = {f"{model}/{rule}" for model in ("nerf", "nerf_release") for rule in ("bp", "dfa", "shallow")}
    assert {cell.column for cell in spec.cells} == ours
    assert all(cell.runs == () for cell in spec.quoted)
    assert cell_of(spec, "lego", "nerf/dfa").overrides == ("task=blender_lego", "model=nerf", "rule=dfa")


def test_table_1_averages_over_the_scenes_of_table_a5() -> None:
    spec, scenes = load_spec("table_1"), load_spec("table_a5")
    runs = {frozenset(run) for cell in spec.cells for run in cell.runs}
    assert runs == {frozenset(run) for cell in scenes.cells for run in cell.runs}
    assert len(cell_of(spec, "llff_real", "nerf/dfa").runs) == 8


def test_a_table_that_the_paper_does_not_have_names_its_own_rows(tmp_path: Path) -> None:
    rows = ["cora/bp", "cora/dfa"]
    folder = edited(tmp_path, drop=("reference",), rows=rows, controls="shallow", heading="Ours alone")
    spec = load_spec("table_4", folder=folder)
    assert spec.heading == "Ours alone" and not spec.published_table
    assert [(cell.row, cell.control) for cell in spec.cells] == [
        ("cora/bp", False),
        ("cora/dfa", False),
        ("cora/shallow", True),
    ]
    assert cell_of(spec, "cora/dfa").overrides == ("task=cora_links", "model=gae", "rule=dfa")
    assert all(spec.published(cell, metric) is None for cell in spec.cells for metric in spec.metrics)
    assert set(spec.metrics) == {"auc", "ap"}
    for both in ({"rows": rows}, {"rows": [], "reference": ""}):
        with pytest.raises(ConfigError, match="either a reference or rows"):
            load_spec("table_4", folder=edited(tmp_path, **both))


def test_columns_of_ours_have_no_published_number() -> None:
    spec = load_spec("table_a5")
    assert spec.published(cell_of(spec, "lego", "nerf/dfa"), "psnr") == 24.93
    added = cell_of(spec, "lego", "nerf_release/dfa")
    assert added.overrides == ("task=blender_lego", "model=nerf_release", "rule=dfa") and not added.control
    assert spec.published(added, "psnr") is None
    assert cell_of(spec, "lego", "nerf_release/shallow").control


def test_a_scale_may_take_a_part_of_the_runs() -> None:
    """One scene of each kind at mini scale: rows of table A5, members of table 1."""
    scenes, means = load_spec("table_a5"), load_spec("table_1")
    assert {cell.row for cell in scenes.cells if cell.runs_at("mini")} == {"lego", "fern"}
    assert all(cell.runs_at("paper") == cell.runs for cell in scenes.cells)
    mean = cell_of(means, "nerf_synthetic", "nerf/dfa")
    assert mean.runs_at("mini") == (("model=nerf", "rule=dfa", "task=blender_lego"),)
    assert len(mean.runs_at("paper")) == 8
    assert all(cell.runs_at("mini") == () for cell in scenes.quoted)


def test_an_extra_rule_is_added_for_every_model() -> None:
    spec = load_spec("table_3", extra_rules=["mine"])
    added = [cell for cell in spec.cells if cell.rule == "mine"]
    assert {(cell.row, cell.column) for cell in added} == {
        *((f"{model}/mine", task) for model in MODELS for task in TASKS),
        *(("spline_normalised/mine", task) for task in ("cora", "citeseer")),
        *(("dna_log_softmax/mine", task) for task in TASKS),
    }
    assert not any(cell.control or cell.reference for cell in added)
    controls = [cell.control for cell in spec.cells]
    assert controls == sorted(controls)
    assert cell_of(spec, "dna/mine", "pubmed").overrides == ("task=pubmed", "model=dna", "rule=mine")


def test_an_extra_rule_where_rows_name_no_rule_or_columns_do() -> None:
    assert cell_of(load_spec("table_a2", ["mine"]), "gcn/mine").rule == "mine"
    assert cell_of(load_spec("table_a5", ["mine"]), "lego", "nerf/mine").rule == "mine"


def test_an_extra_rule_where_rows_are_rules_is_one_row() -> None:
    before, spec = load_spec("table_6"), load_spec("table_6", ["drtp", "mine"])
    added = [cell for cell in spec.cells if cell not in before.cells]
    columns = load_spec("table_6").columns
    assert {cell.name for cell in added if cell.row == "mine"} == {
        f"mine:{column}" for column in ("gcn", "deepfm", "dcn", "nerf_release", "macro", "micro")
    }
    assert {(cell.row, cell.extra_rule) for cell in added} == {("mine", "mine"), ("drtp", "drtp")}
    assert {cell.extra_rule for cell in before.cells} == {""}
    assert "drtp:gcn" not in {cell.name for cell in added}
    assert cell_of(spec, "mine", "dcn").overrides == ("rule=mine", "task=click_log", "model=dcn")
    assert spec.columns == columns


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["shalow", "bp"], "metric closed is relative to unknown rows shalow"),
        (["shallow", "bp", "dfa"], "metric closed is relative to more than two rows"),
    ],
)
def test_relations_to_rows_that_are_not_there_are_named(tmp_path: Path, rows: list[str], message: str) -> None:
    content = yaml.safe_load(config_files("table")["table_6"].read_text())
    content["metrics"]["closed"]["relative_to"] = rows
    (tmp_path / "table_6.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match=message):
        load_spec("table_6", folder=tmp_path)


def test_a_model_without_rules_of_its_own_gets_no_extra_row() -> None:
    assert "fm/mine" not in load_spec("table_2", ["mine"]).rows


@pytest.mark.parametrize("rule", ["dfa", "shallow"])
def test_an_extra_rule_that_is_there_already_adds_nothing(rule: str) -> None:
    assert load_spec("table_4", extra_rules=[rule]).cells == load_spec("table_4").cells


def test_cost_takes_the_first_pattern_that_fits(tmp_path: Path) -> None:
    cost = {"pubmed/dfa": 7, "pubmed/*": 5, "default": 2}
    spec = load_spec("table_4", folder=edited(tmp_path, cost_seconds=dict.fromkeys(("paper", "mini", "smoke"), cost)))
    # safe_dump sorts keys: "default" < "pubmed/*" < "pubmed/dfa"
    assert spec.cost(cell_of(spec, "pubmed/bp"), "mini") == 5
    assert spec.cost(cell_of(spec, "cora/bp"), "mini") == 2
    assert spec.cost(cell_of(spec, "cora/bp"), "mini", stand_in=True) == 2
    costs = {**dict.fromkeys(("paper", "mini", "smoke"), cost), "stand_in": {"default": 1}}
    spec = load_spec("table_4", folder=edited(tmp_path, cost_seconds=costs))
    assert [spec.cost(spec.cells[0], scale, stand_in=True) for scale in ("mini", "smoke")] == [1, 2]
    costs = {**dict.fromkeys(("paper", "mini", "smoke"), cost), "paper_cuda": {"default": 1}}
    spec = load_spec("table_4", folder=edited(tmp_path, cost_seconds=costs))
    found = {(s, d): spec.cost(spec.cells[0], s, device=d) for s in ("paper", "mini") for d in ("cpu", "cuda:1")}
    assert found == {("paper", "cpu"): 2, ("paper", "cuda:1"): 1, ("mini", "cpu"): 2, ("mini", "cuda:1"): 2}
    with pytest.raises(ConfigError, match="unknown scale 'huge'; known: paper, mini, smoke"):
        spec.cost(cell_of(spec, "cora/bp"), "huge")
