"""The lines below a table: what ran, at which cost, what rules take, and whether they beat the frozen control."""

import pytest

from benchmarks.tables.cells import Cell
from benchmarks.tables.data_lines import data_lines
from benchmarks.tables.footnotes import describe_gaps, describe_runs
from benchmarks.tables.spec import TableSpec, load_spec
from benchmarks.tables.summary import CellOutcome, Entry, summarise
from tests.helpers.records import USES
from tests.helpers.tables import accuracies, cell_of, done, language_entries, record


@pytest.mark.parametrize(
    ("dfa", "frozen", "said"),
    [
        ((0.80, 0.82), (0.70, 0.70), False),  # 0.11 apart, deviations 0.014 and 0
        ((0.80, 0.82), (0.80, 0.80), True),  # 0.01 apart
        ((0.82, 0.82), (0.70, 0.90), True),  # 0.02 apart: the control's deviation of 0.14 counts as well
        ((0.80, 0.80), (0.90, 0.90), True),  # worse than the control
    ],
)
def test_a_rule_that_gains_nothing_over_the_frozen_control_is_named(
    dfa: tuple[float, ...], frozen: tuple[float, ...], said: bool
) -> None:
    spec = load_spec("table_movielens")

    def runs(values: tuple[float, ...]) -> CellOutcome:
        metrics = [{"test/auc": value, "test/log_loss": 0.5} for value in values]
        return done([record(found, seed, "movielens_100k", scale="mini") for seed, found in enumerate(metrics)])

    outcomes = {cell_of(spec, "dcn/dfa"): runs(dfa), cell_of(spec, "dcn/shallow"): runs(frozen)}
    lines = describe_runs(spec, outcomes, summarise(spec, outcomes, "mini"))
    assert ("Not better than the frozen control by more than one standard deviation in AUC: dcn/dfa." in lines) is said


@pytest.mark.parametrize(("kind", "said"), [("stand-in", True), ("real", False)])
def test_a_frozen_control_on_other_data_is_not_compared_with(kind: str, said: bool, spec: TableSpec) -> None:
    outcomes = {
        cell_of(spec, "gcn/dfa", "cora"): done(accuracies(0.5, kind="stand-in")),
        cell_of(spec, "gcn/shallow", "cora"): done(accuracies(0.8, kind=kind)),
    }
    footer = "\n".join(describe_runs(spec, outcomes, summarise(spec, outcomes)))
    assert ("Not better than the frozen control" in footer) is said


def test_runs_on_different_contents_of_a_file_are_named(spec: TableSpec) -> None:
    lines = {}
    for kind, other in (("real", "b"), ("real", "a"), ("stand-in", "b")):
        runs = accuracies(0.8, 0.9, kind=kind)
        for run, checksum in zip(runs, ("a", other), strict=True):
            run["data"] = {**run["data"], "checksums": {"own.csv": checksum * 64}}
        outcomes = {cell_of(spec, "gcn/bp", "cora"): done(runs)}
        lines[kind, other] = [line for line in data_lines(runs) if "Not comparable" in line]
        assert set(lines[kind, other]) <= set(describe_runs(spec, outcomes, summarise(spec, outcomes)))
    assert [len(found) for found in lines.values()] == [1, 0, 0]
    assert "own.csv, with the SHA-256 aaaaaaaa… and bbbbbbbb…" in lines["real", "b"][0]


def test_footer_tells_cost_hardware_commit_and_spread(spec: TableSpec) -> None:
    runs = accuracies(0.8, 0.9)
    runs[1] |= {"seconds": 3605.0, "peak_memory_mb": 512.4, "commit": "fff0000", "git_dirty": True}
    outcomes = {cell_of(spec, "gcn/bp", "cora"): done(runs)}
    footer = "\n".join(describe_runs(spec, outcomes, summarise(spec, outcomes)))
    assert "Cost: 1 h 1 min in all for 2 finished runs, peak memory 512 MB." in footer
    assert "Hardware: cpu: a_b." in footer
    assert "Commit: abc1234, fff0000 with uncommitted changes. Versions: torch 2.6." in footer
    assert "sample standard deviation over n seeds; n = 2." in footer
    assert "epoch of the best validation accuracy" in footer
    assert "one run with one seed" in footer


@pytest.mark.parametrize(
    ("gaps", "said"),
    [
        ("abcdefgh", "missing (no reason recorded): row in every column; other:a"),
        ("abcdefg", "missing (no reason recorded): row in every column but h; other:a"),
        ("abcdef", "missing (no reason recorded): row:a, row:b, row:c, row:d, row:e, row:f, other:a"),
    ],
)
def test_a_long_row_without_runs_is_named_in_few_words(gaps: str, said: str) -> None:
    def entry(row: str, column: str, status: str) -> Entry:
        nothing = (None, None, None, None, 0, 0, None, None)
        return Entry(Cell(row, column, (), data="toy"), "accuracy", *nothing, "mini", "", status, "")

    row = [entry("row", column, "missing" if column in gaps else "done") for column in "abcdefgh"]
    other = [entry("other", "a", "missing"), entry("other", "b", "done")]
    assert describe_gaps([*row, *other]) == [said]


def test_of_a_sparse_table_missing_cells_are_counted() -> None:
    def entry(row: str, column: str, status: str) -> Entry:
        nothing = (None, None, None, None, 0, 0, None, None)
        return Entry(Cell(row, column, (), data="toy"), "accuracy", *nothing, "mini", "", status, "")

    rows = {"first": "ab", "second": "b", "third": ""}
    entries = [
        entry(row, column, "done" if column in done else "missing") for row, done in rows.items() for column in "abcd"
    ]
    entries[0] = entry("first", "a", "failed")
    assert describe_gaps(entries, sparse=True) == [
        "failed (no reason recorded): first:a",
        "missing (no reason recorded): 9 of 12 cells; all in the row third; all in the columns c, d",
    ]
    few = [entry("first", "a", "done"), entry("first", "b", "missing")]
    assert describe_gaps(few, sparse=True) == ["missing (no reason recorded): first:b"]


def test_models_that_predict_the_same_for_everything_are_named(spec: TableSpec) -> None:
    runs = accuracies(0.3, 0.3, 0.8)
    runs[0]["metrics"]["test/constant_predictions"] = 0.0
    runs[1]["metrics"]["test/constant_predictions"] = 1.0
    outcomes = {cell_of(spec, "gcn/bp", "cora"): done(runs), cell_of(spec, "gcn/dfa", "cora"): done(accuracies(0.7))}
    lines = describe_runs(spec, outcomes, summarise(spec, outcomes))
    assert "Models that predict the same for every test example: gcn/bp:cora (1 of 3)." in lines


def test_a_run_that_two_cells_share_costs_once(spec: TableSpec) -> None:
    outcomes = {cell_of(spec, row, "cora"): done(accuracies(0.8, config_hash="same")) for row in ("gcn/bp", "gcn/dfa")}
    assert "1 min 0 s in all for 1 finished run," in "\n".join(describe_runs(spec, outcomes, summarise(spec, outcomes)))


def test_profiles_list_the_matching_metrics_in_order() -> None:
    spec, _, outcomes = language_entries()
    (line,) = [
        line
        for line in describe_runs(spec, outcomes, summarise(spec, outcomes, "mini"))
        if line.startswith("Alignment")
    ]
    # Means over the seeds; the point inside a block does not match, and backpropagation has no alignment to show.
    assert line.endswith("dfa_macro: baseline 0.50, 0.25; one_cycle 1.00, 0.75.")


def test_the_frozen_control_of_a_mean_is_that_of_the_same_scenes() -> None:
    """The rows of table 1 differ in their scenes alone: those of one kind are no control of the other's."""
    spec = load_spec("table_1")

    def psnr(row: str, column: str, scene: str, value: float) -> tuple[Cell, CellOutcome]:
        return cell_of(spec, row, column), done([record({"test/psnr": value}, name=scene, scale="mini")])

    outcomes = dict(
        [
            psnr("nerf_synthetic", "nerf/dfa", "blender_lego", 15.3),
            psnr("nerf_synthetic", "nerf/shallow", "blender_lego", 9.2),
            psnr("llff_real", "nerf/dfa", "llff_fern", 20.2),
            psnr("llff_real", "nerf/shallow", "llff_fern", 17.5),
        ]
    )
    assert not any(
        "Not better than the frozen control" in line
        for line in describe_runs(spec, outcomes, summarise(spec, outcomes, "mini"))
    )


def test_what_rules_use_stands_below_the_table() -> None:
    spec = load_spec("table_6")
    found = {
        "dfa": USES | {"state": "fixed feedback"},
        "shallow": USES,
        "calibrate": USES | {"bp_batches": 0.1, "extra_forwards": 1.0, "forward_weights": "gains"},
        "kolen_pollack": USES | {"waves": 2, "extra_forwards": 2.0, "state": "learned feedback"},
        "bp": USES | {"forward_weights": "all", "sequential": True, "bp_batches": 1.0},
    }
    outcomes = {cell_of(spec, rule, "gcn"): done(accuracies(0.8, uses=what)) for rule, what in found.items()}
    for column, what in (("dcn", USES), ("macro", USES), ("micro", found["dfa"])):
        outcomes[cell_of(spec, "identity", column)] = done(accuracies(0.8, uses=what))
    lines = describe_runs(spec, outcomes, summarise(spec, outcomes))
    assert lines[lines.index("dfa uses fixed feedback.") - 1] == "Beyond a forward pass and the error:"
    assert lines.count("Beyond a forward pass and the error:") == 1
    assert "identity uses nothing else; in micro: fixed feedback." in lines
    assert "shallow uses nothing else." in lines
    assert (
        "calibrate uses the gains of the normalisations, exact backpropagation on 10.0% of the batches, "
        "the work of 1 more forward pass a batch." in lines
    )
    assert (
        "kolen_pollack uses 2 waves of signals between neighbouring points, the work of 2 more forward passes a batch, "
        "learned feedback." in lines
    )
    assert "bp uses the forward weights, a sequential backward pass, exact backpropagation." in lines


def test_a_rule_of_another_version_may_use_what_is_not_known_here() -> None:
    spec = load_spec("table_6")
    runs = accuracies(0.8, uses=USES | {"forward_weights": "half", "state": "a buffer"})
    outcomes = {cell_of(spec, "dfa", "gcn"): done(runs)}
    lines = describe_runs(spec, outcomes, summarise(spec, outcomes))
    assert "dfa uses the forward weights (half), a buffer." in lines
