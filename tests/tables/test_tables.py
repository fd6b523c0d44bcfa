"""Tables from synthetic records; every expected number is computed here with NumPy."""

import dataclasses

import numpy as np
import pytest

from benchmarks.errors import ResultsError
from benchmarks.tables.cells import Cell
from benchmarks.tables.render import to_csv, to_latex, to_markdown
from benchmarks.tables.schema import Tolerance
from benchmarks.tables.spec import TableSpec, load_spec
from benchmarks.tables.summary import INCOMPARABLE, CellOutcome, only_better, summarise, within_tolerance
from tests.helpers.tables import accuracies, cell_of, done, entry_of, one_cell, record


def assert_allclose(actual: float | None, expected: float | np.floating) -> None:
    assert actual is not None
    np.testing.assert_allclose(actual, expected)


def test_mean_and_sample_deviation_over_all_seeds() -> None:
    values = [0.801, 0.763, 0.822, 0.5]
    entry = one_cell(values)
    assert entry.mean == pytest.approx(100 * np.mean(values))
    assert entry.std == pytest.approx(100 * np.std(values, ddof=1))
    assert (entry.n, entry.paper, entry.status) == (4, 79.9, "done")
    assert entry.difference == pytest.approx(100 * np.mean(values) - 79.9)


def test_one_seed_has_no_deviation() -> None:
    assert one_cell([0.8]).std is None


@pytest.mark.parametrize(
    ("row", "accuracy", "within"),
    [
        ("gcn/bp", 0.801, True),
        ("gcn/bp", 0.781, True),  # exactly two points below
        ("gcn/bp", 0.7809, False),
        ("gcn/bp", 0.821, True),  # exactly two points above
        ("gcn/bp", 0.8211, False),  # BP has to agree, not to win
        ("gcn/dfa", 0.774, True),
        ("gcn/dfa", 0.7739, False),
        ("gcn/dfa", 0.95, True),
        ("gcn/shallow", 0.37, None),
    ],
)
def test_tolerance_in_points(row: str, accuracy: float, within: bool | None) -> None:
    assert one_cell([accuracy], row=row).within is within


def test_tolerance_in_published_deviations() -> None:
    spec = load_spec("table_a2")
    deviations = {"dfa:alignment_mean": Tolerance(points=2.0, times="alignment_std")}
    spec = dataclasses.replace(spec, file=dataclasses.replace(spec.file, tolerance=deviations))
    cell = cell_of(spec, "gat")  # published: 0.63 with a deviation of 0.18
    for mean, within in [(0.63 + 0.36, True), (0.63 - 0.36, True), (0.63 - 0.361, False), (1.0, False)]:
        assert within_tolerance(spec, cell, "alignment_mean", mean, 0.63) is within
    assert within_tolerance(spec, cell, "alignment_std", 0.18, 0.18) is None


@pytest.mark.parametrize(
    ("row", "accuracy", "better"),
    [
        ("gcn/dfa", 0.824, False),  # exactly 2.5 points above
        ("gcn/dfa", 0.8241, True),
        ("gcn/dfa", 0.7739, False),  # worse, beyond the tolerance
        ("gcn/bp", 0.8211, False),  # BP has to agree
        ("gcn/shallow", 0.9, False),
    ],
)
def test_a_number_that_passes_only_for_being_better_is_told_apart(
    row: str, accuracy: float, better: bool, spec: TableSpec
) -> None:
    rows = summarise(spec, {cell_of(spec, row, "cora"): done(accuracies(accuracy))})
    assert only_better(spec, entry_of(rows, row, "cora")) is better
    assert ("↑" in to_markdown(spec, rows)) is better
    assert (" & better & " in to_latex(spec, rows)) is better
    assert ("True" in to_csv(spec, rows)) is (row == "gcn/dfa" and accuracy > 0.8)


def test_better_means_lower_where_lower_is_better() -> None:
    spec = load_spec("table_5")
    lenient = dataclasses.replace(load_spec("table_3").file.tolerance["dfa"], points=1.0, or_better=True)
    spec = dataclasses.replace(spec, file=dataclasses.replace(spec.file, tolerance={"*": lenient}))
    cell = cell_of(spec, "dfa_macro", "baseline")
    assert within_tolerance(spec, cell, "perplexity", 60.0, 95.0) is True
    assert within_tolerance(spec, cell, "perplexity", 97.0, 95.0) is False


@pytest.mark.parametrize(
    ("more", "data", "published"),
    [
        ({"kind": "stand-in"}, "stand-in", None),
        ({"kind": "stand-in", "scale": "mini"}, "stand-in", None),
        ({"scale": "mini"}, "real", 79.9),
        ({"name": "cora_half"}, "real (cora_half)", None),
    ],
)
def test_paper_number_only_for_the_papers_data_at_its_scale(
    more: dict[str, str], data: str, published: float | None
) -> None:
    entry = one_cell([0.8, 0.7], **more)
    assert (entry.paper, entry.difference, entry.within) == (None, None, None)
    assert (entry.data, entry.published) == (data, published)


def test_a_failed_cell_gets_no_verdict() -> None:
    assert one_cell([0.8, 0.8], status="failed").within is None


def test_a_record_without_the_metric_does_not_pass_for_done() -> None:
    spec = load_spec("table_a2")
    runs = [record({"alignment/mean": 0.7, "alignment/std": 0.1}), record({}, seed=1)]
    entry = entry_of(summarise(spec, {cell_of(spec, "gcn"): done(runs)}), "gcn", "", "alignment_mean")
    assert (entry.n, entry.status, entry.reason) == (1, "partial", "1 without 'alignment/mean'")


def test_a_nan_is_counted_and_fails() -> None:
    entry = one_cell([0.8, float("nan")])
    assert entry.mean is not None and np.isnan(entry.mean)
    assert entry.within is False


def test_a_mean_over_scenes_is_taken_seed_by_seed() -> None:
    spec = load_spec("table_1")
    cell = cell_of(spec, "nerf_synthetic", "nerf/dfa")
    values = np.arange(16.0).reshape(2, 8) ** 1.5
    runs = [
        record({"test/psnr": values[seed, scene]}, seed=seed, name=f"blender_{scene}")
        for seed in range(2)
        for scene in range(8)
    ]
    entry = entry_of(summarise(spec, {cell: done(runs)}), "nerf_synthetic", "nerf/dfa")
    assert entry.mean == pytest.approx(values.mean(axis=1).mean())
    assert entry.std == pytest.approx(values.mean(axis=1).std(ddof=1))
    assert (entry.n, entry.expected, entry.status) == (2, 2, "done")
    partial = CellOutcome(runs[:-1], 16, "partial", "one scene to run")
    entry = entry_of(summarise(spec, {cell: partial}), "nerf_synthetic", "nerf/dfa")
    assert (entry.n, entry.expected, entry.status) == (1, 2, "partial")


def test_records_that_do_not_belong_together_are_refused(spec: TableSpec) -> None:
    cell, other = cell_of(spec, "gcn/bp", "cora"), cell_of(spec, "gcn/dfa", "cora")
    mixed = {cell: done(accuracies(0.8)), other: done(accuracies(0.8, scale="mini"))}
    with pytest.raises(ResultsError, match=r"several scales \(mini, paper\)"):
        summarise(spec, mixed)
    with pytest.raises(ResultsError, match="2 records of seed 0"):
        summarise(spec, {cell: done(accuracies(0.8) * 2)})
    with pytest.raises(ResultsError, match="has no cell nobody"):
        summarise(spec, {Cell("nobody", "", ()): CellOutcome()})
    with pytest.raises(ValueError, match="unknown cell status"):
        CellOutcome(status="lost")
    with pytest.raises(ValueError, match="finished runs"):
        CellOutcome(accuracies(0.8, status="diverged"), 1, "diverged")


def test_a_row_may_take_its_number_from_a_place_of_its_own() -> None:
    spec = load_spec("table_a1")
    metrics = {"alignment/mean": 0.1, "alignment/std": 0.2, "alignment/logarithmic/mean": 0.3,
               "alignment/logarithmic/std": 0.4, "alignment/cross.layers.0/mean": 0.5}  # fmt: skip
    rows = summarise(spec, {cell: done([record(metrics, name="criteo")]) for cell in spec.cells})
    assert [entry_of(rows, "afn", "", metric).mean for metric in spec.metrics] == [0.3, 0.4]
    assert [entry_of(rows, "dcn", "", metric).mean for metric in spec.metrics] == [0.5, None]


def test_values_in_relation_to_other_rows() -> None:
    """Table 6: the way from shallow to BP that a rule goes; on WikiText-2 also its perplexity beside BP's."""
    spec = load_spec("table_6")
    aucs = {"bp": [0.80, 0.84], "shallow": [0.70, 0.72], "dfa": [0.75, 0.79], "fdfa": [0.85, 0.85]}
    outcomes = {
        cell_of(spec, rule, "dcn"): done(
            [record({"test/auc": auc}, seed, "click_log", "stand-in", "mini") for seed, auc in enumerate(values)]
        )
        for rule, values in aucs.items()
    }
    rows = summarise(spec, outcomes)
    for rule, values in aucs.items():
        closed = entry_of(rows, rule, "dcn", "closed")
        assert_allclose(closed.mean, (np.mean(values) - 0.71) / (0.82 - 0.71))
        assert_allclose(closed.std, np.std(values, ddof=1) / (0.82 - 0.71))
        assert_allclose(entry_of(rows, rule, "dcn", "score").mean, np.mean(values))
    bp = outcomes.pop(cell_of(spec, "bp", "dcn"))
    alone = entry_of(summarise(spec, outcomes), "dfa", "dcn", "closed")
    assert (alone.mean, alone.status, alone.reason) == (None, "missing", "no shallow and bp to relate it to")
    stand_in = [dict(found) for found in bp.records]
    real = [{**found, "data": {**found["data"], "kind": "real"}} for found in stand_in]
    for other in (real, [real[0], stand_in[1]]):
        mixed = summarise(spec, {**outcomes, cell_of(spec, "bp", "dcn"): done(other)})
        for rule in aucs:
            closed = entry_of(mixed, rule, "dcn", "closed")
            assert (closed.mean, closed.std, closed.status) == (None, None, INCOMPARABLE)
            assert entry_of(mixed, rule, "dcn", "score").status == "done"
    spec = load_spec("table_6_wikitext2")
    runs = {
        rule: [record({"test/perplexity": value}, 0, "wikitext2", "real", "mini")]
        for rule, value in (("bp", 100.0), ("dfa", 120.0))
    }
    rows = summarise(spec, {cell_of(spec, rule, "macro"): done(found) for rule, found in runs.items()})
    assert_allclose(entry_of(rows, "dfa", "macro", "ratio").mean, 1.2)
    of_column = {column: {row.metric for row in rows if row.cell.column == column} for column in ("macro", "macro_2")}
    assert of_column == {
        "macro": {"score", "ratio", "closed"},
        "macro_2": {"score", "ratio"},
    }  # the latter without shallow


def test_columns_of_quoted_numbers_that_may_not_be_shown_are_left_out() -> None:
    spec = load_spec("table_a5")
    cell = cell_of(spec, "lego", "nerf/bp")
    rows = summarise(spec, {cell: done([record({"test/psnr": 20.0}, name="blender_lego", scale="mini")])}, "mini")
    latex, markdown = to_latex(spec, rows), to_markdown(spec, rows)
    assert "quoted" not in latex and "nv/bp" not in latex, "reduced runs stand without the paper's numbers there"
    assert "nv/bp paper (quoted)" in markdown and "26.08" in markdown
    assert ",nv/bp," in to_csv(spec, rows), "the CSV holds all"
