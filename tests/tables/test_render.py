"""What readers see of a table: Markdown, CSV, LaTeX, the lines below."""

import csv
import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest

from benchmarks.errors import ResultsError
from benchmarks.tables.files import write_texts
from benchmarks.tables.footnotes import describe_runs
from benchmarks.tables.layout import mean_and_std, shown
from benchmarks.tables.render import escape_latex, to_csv, to_latex, to_markdown
from benchmarks.tables.spec import TableSpec, load_spec
from benchmarks.tables.summary import CellOutcome, summarise
from tests.helpers.tables import accuracies, cell_of, done, entry_of, language_entries, numbers_of, record

HEADER = "table,row,column,metric,paper,mean,std,n,difference,within_tolerance,scale,data,status"


def test_a_reduced_table_holds_only_what_belongs_to_its_scale() -> None:
    """Table 1 at mini scale averages over one scene of each kind; table A5 has but these two rows."""
    spec = load_spec("table_1")
    cell = cell_of(spec, "nerf_synthetic", "nerf/dfa")
    found = record({"test/psnr": 21.5}, name="blender_lego", scale="mini")
    entry = entry_of(summarise(spec, {cell: done([found])}, "mini"), "nerf_synthetic", "nerf/dfa")
    assert (entry.mean, entry.n, entry.expected, entry.status) == (21.5, 1, 1, "done")
    at_paper = summarise(spec, {cell: done([found | {"scale": "paper"}])}, "paper")
    assert entry_of(at_paper, "nerf_synthetic", "nerf/dfa").mean is None, "one of eight scenes"

    scenes = load_spec("table_a5")
    rows = summarise(scenes, {cell_of(scenes, "lego", "nerf/dfa"): done([found])}, "mini")
    assert {entry.cell.row for entry in rows} == {"lego", "fern"}
    assert "| chair" not in to_markdown(scenes, rows) and "| lego" in to_markdown(scenes, rows)


def test_real_and_stand_in_runs_of_one_cell_are_never_compared(spec: TableSpec) -> None:
    runs = [*accuracies(0.8), record({"test/accuracy": 0.7}, seed=1, kind="stand-in")]
    rows = summarise(spec, {cell_of(spec, "gcn/dfa", "cora"): done(runs)})
    entry = entry_of(rows, "gcn/dfa", "cora")
    assert (entry.data, entry.paper, entry.published) == ("mixed", None, None)
    assert "[mixed]" in to_markdown(spec, rows, [])


def test_a_stand_in_table_shows_no_paper_number_and_says_so(spec: TableSpec) -> None:
    outcomes = {
        cell: done(
            accuracies(
                0.123, 0.123, name=cell.column, kind="stand-in", scale="mini", notes={"bayes": 0.5, "nodes": 2708.0}
            )
        )
        for cell in spec.cells
    }
    rows = summarise(spec, outcomes)
    footer = describe_runs(spec, outcomes, summarise(spec, outcomes))
    markdown, latex = to_markdown(spec, rows, footer), to_latex(spec, rows, footer)
    table = [line for line in markdown.splitlines() if line.startswith("|")]
    for line in table:
        assert not numbers_of("table_3") & set(line.split())
        assert not numbers_of("table_a4") & set(line.split())
    assert markdown.count("cora (stand-in) ours, mini") == 2
    assert "cora (stand-in; bayes 0.5; nodes 2708)" in markdown
    assert r"\multicolumn{1}{c}{pubmed (stand-in)}" in latex
    assert all(not line["paper"] for line in csv.DictReader(io.StringIO(to_csv(spec, rows))))


def test_rows_are_labelled_where_they_name_the_data() -> None:
    spec = load_spec("table_4")
    metrics = {"test/auc": 0.5, "test/ap": 0.25}
    outcomes = {
        cell_of(spec, "cora/bp"): done([record(metrics, name="cora_links", kind="stand-in")]),
        cell_of(spec, "cora/dfa"): done([record(metrics, name="cora_links")]),
    }
    rows = summarise(spec, outcomes)
    labels = [line.split("|")[1].strip() for line in to_markdown(spec, rows).splitlines() if line.startswith("|")]
    assert "cora/bp (stand-in)" in labels and "cora/dfa" in labels
    (line,) = [line for line in to_markdown(spec, rows).splitlines() if line.startswith("| cora/dfa")]
    assert [part.strip() for part in line.split("|")[2:-1]] == [
        *("0.900", "0.500", "-0.400", "✗"),
        *("0.900", "0.250", "-0.650", "✗"),
    ]


def test_a_table_that_the_paper_does_not_have_compares_with_nothing() -> None:
    spec = load_spec("table_movielens")
    cell = cell_of(spec, "dcn/dfa")
    metrics = {"test/auc": 0.75, "test/log_loss": 0.5}
    records = [record(metrics, seed, "movielens_100k", scale="mini") for seed in range(2)]
    outcomes = {cell: done(records)}
    rows = summarise(spec, outcomes, "mini")
    markdown = to_markdown(spec, rows, describe_runs(spec, outcomes, summarise(spec, outcomes, "mini")))
    assert markdown.startswith("# MovieLens-100k. ")
    (line,) = [line for line in markdown.splitlines() if line.startswith("| dcn/dfa")]
    assert [part.strip() for part in line.strip("|").split("|")] == ["dcn/dfa", "0.7500 ± 0.0000", "0.5000 ± 0.0000"]
    assert "The paper reports no numbers for this table." in markdown
    assert "paper's numbers" not in markdown and "✓" not in markdown
    assert r"\multicolumn{1}{c}{AUC}" in to_latex(spec, rows)


def test_shares_of_a_gap_between_runs_on_other_data_are_blank_and_named() -> None:
    """Rows of a rule that was added, on generated data, beside committed records of real data."""
    spec = load_spec("table_6", ["mine"])
    kinds = {("mine", "gcn"): "stand-in", ("mine", "dcn"): "stand-in", ("bp", "dcn"): "stand-in"}
    kinds |= {("shallow", "dcn"): "stand-in", ("bp", "gcn"): "real", ("shallow", "gcn"): "real"}
    scores = {"bp": 0.8, "shallow": 0.4, "mine": 0.7}
    outcomes = {
        cell_of(spec, *place): done(
            [record({"test/accuracy": scores[place[0]], "test/auc": scores[place[0]]}, kind=kind, scale="mini")]
        )
        for place, kind in kinds.items()
    }
    rows = summarise(spec, outcomes, "mini")
    markdown = to_markdown(spec, rows, describe_runs(spec, outcomes, rows))
    score, share = (
        [part.strip() for part in line.split("|")[1:5]]
        for line in markdown.splitlines()
        if line.startswith(("| mine ", "| mine (stand-in) "))
    )
    assert score == ["mine (stand-in)", "0.700", "missing", "0.700"]
    assert share == ["mine (stand-in)", "–", "missing", "0.75"]
    name = "share of the gap between shallow and BP that is closed"
    assert f"- No {name} for runs that are not on the same data as shallow and bp: mine:gcn.\n" in markdown
    assert "incomparable" not in markdown and ",incomparable\n" in to_csv(spec, rows)


@pytest.mark.parametrize("sparse", [False, True])
def test_a_sparse_table_shows_rows_and_columns_in_which_something_has_run(spec: TableSpec, sparse: bool) -> None:
    spec = dataclasses.replace(spec, file=dataclasses.replace(spec.file, sparse=sparse))
    cells = [cell_of(spec, row, "cora") for row in ("gcn/bp", "gat/dfa")]
    outcomes = {cell: done(accuracies(0.8)) for cell in cells}
    rows = summarise(spec, outcomes)
    table, control = to_markdown(spec, rows).split("## Frozen control")
    lines = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("|")]
    assert (lines[2:] == ["gcn/bp", "gat/dfa"]) is sparse and {"gcn/bp", "gat/dfa"} <= set(lines)
    assert ("pubmed" in table.splitlines()[2]) is not sparse
    assert "gcn/shallow" in control  # of which nothing has run: shown as it is
    assert len(to_csv(spec, rows).splitlines()) == 55


def test_csv_columns_and_lines(spec: TableSpec) -> None:
    cell = cell_of(spec, "gcn/bp", "cora")
    text = to_csv(spec, summarise(spec, {cell: done(accuracies(0.8, 0.82))}))
    lines = text.splitlines()
    assert lines[0] == HEADER
    assert len(lines) == 1 + 45 + 6 + 3  # Spline on normalised features, DNA with log-softmax
    std = np.std([80.0, 82.0], ddof=1)
    assert f"table_3,gcn/bp,cora,accuracy_percent,80.1,81,{std:.10g},2,0.9,True,paper,real,done" in lines
    assert "table_3,gcn/dfa,cora,accuracy_percent,,,,0,,,paper,,missing" in lines
    assert sum("/shallow," in line for line in lines) == 15 + 2


def test_csv_keeps_two_metrics_apart() -> None:
    spec = load_spec("table_a2")
    runs = [record({"alignment/mean": 0.73, "alignment/std": 0.2})]
    lines = to_csv(spec, summarise(spec, {cell_of(spec, "gcn"): done(runs)})).splitlines()
    assert "table_a2,gcn,,alignment_mean,0.77,0.73,,1,-0.04,True,paper,real,done" in lines
    assert "table_a2,gcn,,alignment_std,0.25,0.2,,1,-0.05,,paper,real,done" in lines


def test_missing_partial_failed_and_diverged_cells_stay_visible(spec: TableSpec) -> None:
    outcomes = {
        cell_of(spec, "gcn/bp", "cora"): CellOutcome(accuracies(0.8, 0.82), 3, "partial", "seed 2 to run"),
        cell_of(spec, "gat/bp", "cora"): CellOutcome(accuracies(0.82, 0.84), 3, "diverged", "loss is\nNaN | step 7"),
        cell_of(spec, "dna/bp", "cora"): CellOutcome((), 3, "failed", "out of memory"),
        cell_of(spec, "dna/dfa", "cora"): CellOutcome((), 3, "missing", "data not at hand"),
    }
    rows = summarise(spec, outcomes)
    text = to_markdown(spec, rows, describe_runs(spec, outcomes, summarise(spec, outcomes)))
    assert "81.0 ± 1.4 (2 of 3 seeds)" in text
    assert "83.0 ± 1.4 (2 of 3 seeds, diverged)" in text
    assert "- Not complete: diverged (2 of 3 seeds done; loss is NaN | step 7): gat/bp:cora" in text
    assert "- Not complete: failed (0 of 3 seeds done; out of memory): dna/bp:cora" in text
    assert "missing (0 of 3 seeds done; data not at hand): dna/dfa:cora" in text
    # Paper, ours, Δ and verdict for Cora; ours alone for the others and in the frozen control, where nothing has run.
    widths = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert widths == {8, 5}
    assert entry_of(rows, "gcn/bp", "cora").within is True
    # 83.0 lies within two points of 82.6, but a seed diverged.
    assert entry_of(rows, "gat/bp", "cora").within is False
    statuses = {line["row"]: line["status"] for line in csv.DictReader(io.StringIO(to_csv(spec, rows)))
                if line["column"] == "cora"}  # fmt: skip
    assert statuses["dna/bp"] == "failed" and statuses["gat/bp"] == "diverged" and statuses["gcn/dfa"] == "missing"


def test_a_table_with_nothing_run_renders(spec: TableSpec) -> None:
    rows = summarise(spec, {}, "mini")
    text = to_markdown(spec, rows, describe_runs(spec, {}, summarise(spec, {}, "mini")))
    assert not any(numbers_of("table_3") & set(line.split()) for line in text.splitlines() if "|" in line)
    assert "no seed has run" in text


@pytest.mark.parametrize(("kind", "shown"), [("real", True), ("stand-in", False)])
def test_quoted_numbers_stand_only_beside_runs_on_the_same_data(kind: str, shown: bool) -> None:
    spec = load_spec("table_a5")
    runs = [record({"test/psnr": 20.0}, name="blender_lego", kind=kind)]
    rows = summarise(spec, {cell_of(spec, "lego", "nerf/dfa"): done(runs)})
    quoted = {e.cell.row: e.paper for e in rows if e.cell.column == "nv/bp"}
    assert quoted["lego"] == (26.08 if shown else None)
    assert quoted["chair"] is None
    assert ("26.08" in to_markdown(spec, rows)) is shown
    assert ("26.08" in to_latex(spec, rows)) is shown


def test_reduced_runs_show_the_paper_in_markdown_only_and_without_verdict(spec: TableSpec) -> None:
    outcomes = {cell_of(spec, "gcn/bp", "cora"): done(accuracies(0.8012, scale="mini"))}
    rows = summarise(spec, outcomes)
    (line,) = [line for line in to_markdown(spec, rows).splitlines() if line.startswith("| gcn/bp")]
    assert [part.strip() for part in line.split("|")[2:5]] == ["80.1", "80.1", "missing"]  # no difference, no verdict
    assert "Δ" not in to_markdown(spec, rows)
    (line,) = [line for line in to_latex(spec, rows).splitlines() if line.startswith("gcn/bp")]
    assert [part.strip(" \\") for part in line.split("&")[1:]] == ["80.1", "missing", "missing"]
    assert "Scale: mini" in "\n".join(describe_runs(spec, outcomes, summarise(spec, outcomes)))


def test_a_difference_that_rounds_to_nothing_has_no_minus(spec: TableSpec) -> None:
    rows = summarise(spec, {cell_of(spec, "gcn/bp", "cora"): done(accuracies(0.8008))})
    (line,) = [line for line in to_markdown(spec, rows).splitlines() if line.startswith("| gcn/bp")]
    assert line.split("|")[4].strip() == "+0.0"


def test_a_mean_that_rounds_to_nothing_has_no_minus() -> None:
    assert (mean_and_std(-0.0004, 0.01, 2), shown(-0.0004, 3)) == ("0.00 ± 0.01", "0.000")
    assert (shown(-0.006, 2), shown(-0.0051, 2)) == ("-0.01", "-0.01")


def test_a_bar_in_a_name_does_not_split_a_markdown_column(spec: TableSpec) -> None:
    rows = summarise(spec, {}, "smoke")
    odd = [dataclasses.replace(e, status="half | done") if e.cell.row == "gcn/bp" else e for e in rows]
    (line,) = [line for line in to_markdown(spec, odd).splitlines() if line.startswith("| gcn/bp")]
    assert line.replace(r"\|", "").count("|") == 5


def test_latex_escapes() -> None:
    assert escape_latex(r"a_b & 5% {x} #1 $ ~ ^ \ ±") == (
        r"a\_b \& 5\% \{x\} \#1 \$ \textasciitilde{} \textasciicircum{} \textbackslash{} $\pm$"
    )


def test_latex_is_a_booktabs_table_with_nothing_unescaped(spec: TableSpec) -> None:
    outcomes = {cell: done(accuracies(0.8, 0.9, name=cell.column, scale="paper")) for cell in spec.cells}
    text = to_latex(
        spec,
        summarise(spec, outcomes),
        [*describe_runs(spec, outcomes, summarise(spec, outcomes)), "50% & more_of {it}"],
    )
    assert r"50\% \& more\_of \{it\}" in text
    for begin in ("table", "tabular"):
        assert text.count(rf"\begin{{{begin}}}") == text.count(rf"\end{{{begin}}}") > 0
    body = [line for line in text.splitlines() if line.startswith(("gcn/", "dna/"))]
    assert len(body) == 6 and all(line.count("&") == 12 and line.endswith(r"\\") for line in body)
    assert not [letter for letter in text if letter in "±Δ✓✗–"]
    assert text.replace(r"\{", "").replace(r"\}", "").count("{") == text.replace(r"\{", "").replace(r"\}", "").count(
        "}"
    )


def test_files_are_written_side_by_side_and_replaced(tmp_path: Path, spec: TableSpec) -> None:
    rows = summarise(spec, {}, "smoke")
    folder = tmp_path / "tables"
    first = {"md": to_markdown(spec, rows, ["first"]), "csv": to_csv(spec, rows)}
    assert [path.name for path in write_texts("table_3", first, folder)] == ["table_3.md", "table_3.csv"]
    write_texts("table_3", {"md": to_markdown(spec, rows, ["second"])}, folder)
    assert "- second" in (folder / "table_3.md").read_text(encoding="utf-8")
    assert "first" not in (folder / "table_3.md").read_text(encoding="utf-8")
    assert (folder / "table_3.csv").read_text(encoding="utf-8") == to_csv(spec, rows)
    assert len(list(folder.iterdir())) == 2


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path, spec: TableSpec) -> None:
    (tmp_path / "tables").write_text("a file", encoding="utf-8")
    with pytest.raises(ResultsError, match="cannot write"):
        write_texts("table_3", {"md": ""}, tmp_path / "tables")


def _lines(text: str, row: str) -> list[list[str]]:
    return [
        [part.strip() for part in line.split("|")[2:-1]] for line in text.splitlines() if line.startswith(f"| {row} ")
    ]


def test_a_metric_the_paper_lacks_gets_a_block_of_its_own() -> None:
    spec, rows, _ = language_entries()
    text = to_markdown(spec, rows)
    headings = [line for line in text.splitlines() if line.startswith("#")]
    assert headings[1:] == ["## Frozen control", "## Perplexity per word"]
    main, words = _lines(text, "bp")
    assert main[0].startswith("10.0") and words[0].startswith("20.0")
    # Of generated data: ours alone throughout.
    assert (len(main), len(words)) == (5, 5)
    assert [lines[0].split()[0] for lines in _lines(text, "shallow")] == ["50.0", "100.0"]
    assert "perplexity per word" not in text.split("## Perplexity per word")[0]


def test_seeds_are_counted_in_every_cell_where_they_differ() -> None:
    spec, rows, _ = language_entries()
    text = to_markdown(spec, rows)
    assert _lines(text, "dfa_macro")[0][-1] == "16.0 ± 1.4 (n = 2)"
    assert "20.0 (n = 1)" in _lines(text, "dfa_macro")[0]
