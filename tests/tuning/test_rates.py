"""Learning rates of a table: found on validation, kept beside its file, used by its runs and told below it."""

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.commands import tune
from benchmarks.config import compose_config
from benchmarks.errors import ConfigError
from benchmarks.run.records import RunFolder
from benchmarks.tables import figure as figures
from benchmarks.tables.chosen import read_chosen
from benchmarks.tables.footnotes import describe_runs
from benchmarks.tables.plan import make_plan
from benchmarks.tables.spec import TableSpec, load_spec
from benchmarks.tables.summary import summarise
from benchmarks.tuning.trials import best, make_trials, reached
from tests.conftest import TOY, Command, Toys
from tests.helpers.tables import cell_of, done

TABLE = f"""
heading: Toys
title: Toys
rows: [bp, dfa]
columns: [small, wide]
overrides: ["task=toy", "rule={{row}}", "plugins=[{TOY}]", "trainer.epochs=2", "run.wandb=disabled"]
overrides_for: {{"*:small": [model=toy_mlp], "*:wide": [model=toy_wide]}}
data: "*"
metrics: {{accuracy: {{record: test/accuracy, label: accuracy}}}}
seeds: {{paper: 2, mini: 2, smoke: 1}}
selection: best
cost_seconds: {{paper: {{default: 1}}, mini: {{default: 1}}, smoke: {{default: 1}}}}
rates: {{factors: [0.0001, 1, 10], settings: {{mini: [trainer.epochs=1]}}}}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "table"
    folder.mkdir()
    (folder / "toys.yaml").write_text(TABLE, encoding="utf-8")
    monkeypatch.setenv("DFA_CONFIG_DIR", str(folder.parent))
    return folder


def _arguments(toys: Toys, *more: str) -> list[str]:
    return ["toys", "--set", f"run.results_dir={toys.results}", "--set", "launcher=serial", *more]


def _trials(toys: Toys) -> list[dict[str, str]]:
    with (toys.results / "search" / "toys-mini.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _rates(spec: TableSpec, scale: str) -> dict[str, float]:
    """Rate of the first run of every cell."""
    return {
        cell.name: float(compose_config([*cell.runs_at(scale)[0], f"scale={scale}"]).optimizer.lr)
        for cell in spec.cells
    }


def test_the_best_on_validation_is_kept_and_used(folder: Path, toys: Toys, command: Command) -> None:
    configured = _rates(load_spec("toys", folder=folder), "mini")
    code, out, err = command(tune.main, *_arguments(toys))
    assert (code, err) == (0, "") and "12 runs, 12 of them to do" in out
    trials = _trials(toys)
    assert [float(t["lr"]) for t in trials[:3]] == pytest.approx([configured["bp:small"] * f for f in (1e-4, 1, 10)])
    records = [RunFolder(path.parent).read() for path in toys.results.rglob("result.json")]
    assert {(record["seed"], record["epochs"]) for record in records if record} == {(1000, 1)}
    spec = load_spec("toys", folder=folder)
    used = _rates(spec, "mini")
    for name in configured:
        of_cell = [trial for trial in trials if f"{trial['row']}:{trial['column']}" == name]
        found = [record["best_valid"] for record in records if record and record["rule"] == name.split(":")[0]]
        assert all(pytest.approx(float(trial["value"])) in found for trial in of_cell)
        best = max(float(trial["value"]) for trial in of_cell)
        (chosen,) = [trial for trial in of_cell if trial["chosen"] == "1"]
        assert float(chosen["value"]) == best and used[name] == float(chosen["lr"])
        assert float(of_cell[0]["value"]) < best, "a ten-thousandth of the rate learns nothing"
    assert _rates(spec, "paper") == configured, "other scales keep theirs"
    outcomes = {cell: done([record for record in records if record][:1]) for cell in spec.cells}
    footer = "\n".join(describe_runs(spec, outcomes, summarise(spec, outcomes, "mini")))
    assert "best on validation of 0.0001, 1, 10 times the configured one" in footer
    assert "seed 1000, trainer.epochs=1 (results/search/toys-mini.md)" in footer


def test_the_trials_are_of_the_runs_at_their_scale(folder: Path, toys: Toys) -> None:
    further = 'overrides_at: {mini: {"dfa:*": [optimizer.weight_decay=0.5], "*": [trainer.epochs=9]}}'
    (folder / "toys.yaml").write_text(f"{TABLE}{further}\n", encoding="utf-8")
    decays = {
        (trial.cell.row, trial.configs[0].optimizer.weight_decay) for trial in make_trials(load_spec("toys"), "mini")
    }
    assert decays == {("bp", 0.0), ("dfa", 0.5)}
    assert {trial.configs[0].trainer.epochs for trial in make_trials(load_spec("toys"), "mini")} == {1}, (
        "the search's own"
    )
    assert {trial.configs[0].trainer.epochs for trial in make_trials(load_spec("toys"), "paper")} == {2}


def test_a_second_search_runs_nothing_and_finds_the_same(folder: Path, toys: Toys, command: Command) -> None:
    command(tune.main, *_arguments(toys))
    files = {path: path.read_bytes() for path in (*folder.rglob("*.yaml"), *(toys.results / "search").iterdir())}
    code, out, _ = command(tune.main, *_arguments(toys))
    assert code == 0 and "12 runs, 0 of them to do" in out
    assert all(path.read_bytes() == content for path, content in files.items())
    kept = yaml.safe_load((folder / "chosen" / "toys.yaml").read_text())
    (folder / "chosen" / "toys.yaml").write_text(yaml.safe_dump({"paper": {"bp": ["optimizer.lr=7"]}}))
    command(tune.main, *_arguments(toys))
    assert yaml.safe_load((folder / "chosen" / "toys.yaml").read_text()) == kept | {"paper": {"bp": ["optimizer.lr=7"]}}


def test_a_further_rule_is_tried_alone_and_its_rates_are_kept_apart(folder: Path, toys: Toys, command: Command) -> None:
    command(tune.main, *_arguments(toys))
    files = {path: path.read_bytes() for path in (*folder.rglob("*.yaml"), *(toys.results / "search").iterdir())}
    spec = load_spec("toys", ["toy_opposite"], folder)
    outcomes = {cell: done([]) for cell in spec.cells}
    line = next(line for line in describe_runs(spec, outcomes, summarise(spec, outcomes, "mini")) if "rates" in line)
    told = (
        "(results/search/toys-mini.md). At the configured one, without a search: toy_opposite:small, toy_opposite:wide."
    )
    assert line.endswith(told)
    code, out, err = command(tune.main, *_arguments(toys, "--rules", "toy_opposite"))
    assert (code, err) == (0, "") and "2 cells, 6 runs, 6 of them to do" in out
    assert all(path.read_bytes() == content for path, content in files.items())
    tuned = load_spec("toys", ["toy_opposite"], folder)
    kept = read_chosen("toys-toy_opposite", folder, ["toy_opposite:small", "toy_opposite:wide"])["mini"]
    for cell in tuned.cells:
        assert dict(cell.chosen)["mini"] == tuple(kept[cell.name]) if cell.extra_rule else cell in spec.cells
    assert load_spec("toys", folder=folder).cells == spec.cells[:4], "without the rule its rates are not read"
    line = next(line for line in describe_runs(tuned, outcomes, summarise(tuned, {}, "mini")) if "rates" in line)
    assert line.endswith("(results/search/toys-mini.md, results/search/toys-toy_opposite-mini.md).")


def test_a_row_can_take_the_rate_of_one_column(folder: Path, toys: Toys, command: Command) -> None:
    content = TABLE.replace("rates: {", "rates: {column: wide, ")
    (folder / "toys.yaml").write_text(content, encoding="utf-8")
    assert "6 runs" in command(tune.main, *_arguments(toys))[1]
    spec = load_spec("toys", folder=folder)
    assert cell_of(spec, "dfa", "small").chosen == cell_of(spec, "dfa", "wide").chosen != ()
    assert len(read_chosen("toys", folder, ["bp", "dfa"])["mini"]) == 2


def test_several_seeds_decide_by_their_mean(folder: Path, toys: Toys, command: Command) -> None:
    content = TABLE.replace("rates: {", "rates: {seeds: {'dfa:*': 3}, ")
    (folder / "toys.yaml").write_text(content, encoding="utf-8")
    code, out, _ = command(tune.main, *_arguments(toys))
    assert code == 0 and "4 cells, 24 runs" in out, "three rates, of two cells with one seed and two with three"
    assert "with seed 1000, trainer.epochs=1; dfa:*: the mean of seeds 1000 to 1002." in out
    trial = next(line for line in _trials(toys) if line["row"] == "dfa")
    found = {}
    for run in toys.results.glob("runs/toy/toy_mlp/dfa/*"):
        config, record = yaml.safe_load((run / "config.yaml").read_text()), RunFolder(run).read()
        if record is not None and config["optimizer"]["lr"] == float(trial["lr"]):
            found[record["seed"]] = record["best_valid"]
    assert sorted(found) == [1000, 1001, 1002]
    assert float(trial["value"]) == pytest.approx(sum(found.values()) / 3)


def test_runs_of_other_code_are_to_do_again(
    folder: Path, toys: Toys, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    command(tune.main, *_arguments(toys))
    assert "12 runs, 0 of them to do" in command(tune.main, *_arguments(toys, "--dry"))[1]
    monkeypatch.setattr("benchmarks.run.inputs.Inputs.differs_from", lambda inputs, record: "other code")
    assert "12 runs, 12 of them to do" in command(tune.main, *_arguments(toys, "--dry"))[1]


def test_every_record_is_read_once_a_round(
    folder: Path, toys: Toys, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    command(tune.main, *_arguments(toys))
    read, genuine = Counter[Path](), RunFolder.read

    def counted(run: RunFolder) -> Any:
        read[run.path] += 1
        return genuine(run)

    monkeypatch.setattr(RunFolder, "read", counted)
    monkeypatch.setattr("benchmarks.tuning.rates.launch", lambda configs, launcher: [])
    command(tune.main, *_arguments(toys))
    assert len(read) == 12 and set(read.values()) == {2}, "to tell what is to do, and after the runs"


@dataclass
class Tried:
    """What `reached` asks of a trial; `told` holds the values that are known by now."""

    factor: float
    told: dict[float, float | None]
    cell: None = None

    @property
    def is_over(self) -> bool:
        return self.factor in self.told

    @property
    def value(self) -> float | None:
        return self.told.get(self.factor)

    @property
    def records(self) -> list[dict[str, bool]]:
        return [{"higher_is_better": False}] * self.is_over


def _walk(values: Sequence[float | None]) -> tuple[list[float], float | None]:
    """Factors in the order in which a walk asks for them, each told its value, and the one it ends with."""
    told: dict[float, float | None] = {}
    trials: list[Any] = [Tried(factor, told) for factor in range(1, len(values) + 1)]
    while due := [trial.factor for trial in reached(trials, walk=True) if not trial.is_over]:
        told |= {factor: values[int(factor) - 1] for factor in due}
    kept = best(reached(trials, walk=True))
    return list(told), None if kept is None else kept.factor


@pytest.mark.parametrize(
    ("values", "asked", "found"),
    [
        ([5, 4, 3, 4, 5], [2, 3, 4], 3),
        ([2, 3, 4, 5, 6], [2, 3, 4, 1], 1),
        ([9, 8, 7, 6, 5], [2, 3, 4, 5], 5),
        ([6, 5, 4, 3, 4, 5, 6, 7, 8], [4, 5, 6, 3], 4),
        ([1, None, None, None, None], [2, 3, 4, 1], 1),
        ([None, None, None], [1, 2, 3], None),
        ([3, 2], [1, 2], 2),
        ([3], [1], 1),
    ],
)
def test_a_walk_goes_on_only_while_it_helps(values: list[float | None], asked: list[float], found: float) -> None:
    assert _walk(values) == (asked, found)


def test_a_walk_finds_the_best_of_a_valley_wherever_it_is() -> None:
    for length in range(1, 9):
        for bottom in range(length):
            valley = [abs(place - bottom) + 0.25 * (place > bottom) for place in range(length)]
            assert _walk(valley)[1] == bottom + 1


def test_a_walk_leaves_what_it_did_not_reach_out_of_the_report(folder: Path, toys: Toys, command: Command) -> None:
    content = TABLE.replace("[0.0001, 1, 10]", "[1e-5, 1e-4, 1, 2, 10]").replace("rates: {", "rates: {walk: true, ")
    (folder / "toys.yaml").write_text(content, encoding="utf-8")
    code, out, _ = command(tune.main, *_arguments(toys))
    assert code == 0 and "12 runs of 20 at most" in out and "tried from the middle" in out
    tried = {(line["row"], line["column"], float(line["factor"])) for line in _trials(toys)}
    assert not any(factor == 1e-5 for _, _, factor in tried)
    assert 12 <= len(tried) == len(list(toys.results.rglob("result.json"))) < 20


def test_rates_that_diverge_are_not_chosen(folder: Path, toys: Toys, command: Command) -> None:
    (folder / "toys.yaml").write_text(TABLE.replace("0.0001", "1e45"), encoding="utf-8")
    code, out, _ = command(tune.main, *_arguments(toys))
    assert code == 1 and "diverged" in out
    assert all(rate < 1 for rate in _rates(load_spec("toys", folder=folder), "mini").values())


def test_runs_of_a_plan_have_the_chosen_rate(folder: Path, toys: Toys) -> None:
    (folder / "chosen").mkdir()
    (folder / "chosen" / "toys.yaml").write_text("mini: {'dfa:small': [optimizer.lr=0.125]}", encoding="utf-8")
    plan = make_plan(load_spec("toys", folder=folder), "mini", None, [f"run.results_dir={toys.results}"], 1)
    rates = {(run.cell.name, run.config.seed): run.config.optimizer.lr for run in plan.runs}
    assert rates["dfa:small", 0] == rates["dfa:small", 1] == 0.125 and rates["bp:small", 0] != 0.125


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mini: {'dfa:large': []}", "there is no row or cell 'dfa:large' in toys"),
        ("mini: [dfa]", "must map scales to cells"),
        ("mini: {dfa: lr}", "must map scales to cells"),
        ("mini: {", "not valid YAML"),
    ],
)
def test_mistakes_in_what_was_chosen_are_told(folder: Path, text: str, message: str) -> None:
    (folder / "chosen").mkdir()
    (folder / "chosen" / "toys.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        load_spec("toys", folder=folder)


def test_what_cannot_be_tuned_is_told(folder: Path, toys: Toys, command: Command) -> None:
    (folder / "fixed.yaml").write_text(TABLE[: TABLE.index("rates:")], encoding="utf-8")
    code, _, err = command(tune.main, "fixed")
    assert code == 2 and err == "error: table file fixed.yaml names no `rates` to try\n"
    (folder / "toys.yaml").write_text(TABLE.replace("0.0001", "-1"), encoding="utf-8")
    code, _, err = command(tune.main, *_arguments(toys))
    assert code == 2 and "factors must be positive" in err
    (folder / "toys.yaml").write_text(TABLE, encoding="utf-8")
    code, _, err = command(tune.main, *_arguments(toys), "--rules", "bp")
    assert code == 2 and err == "error: Toys has all cells of rule bp already; leave it out of --rules\n"
    code, _, err = command(tune.main, *_arguments(toys), "--scale", "large")
    assert code == 2 and "unknown scale 'large'" in err


def test_panels_of_a_figure_share_the_runs_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    table = load_spec("table_6_wikitext2")
    chosen = (("mini", ("optimizer.lr=0.125",)),)
    cells = tuple(replace(cell, chosen=chosen) for cell in table.cells)
    monkeypatch.setattr(figures, "load_spec", lambda name: replace(table, cells=cells))
    by_name = {cell.name: cell for cell in cells}
    panel = figures.load_figure("figure_6_wikitext2").cells[0]
    assert panel.runs_at("mini") == by_name["bp:macro"].runs_at("mini")
    assert "optimizer.lr=0.125" in panel.runs_at("mini")[0] and "optimizer.lr=0.125" not in panel.runs_at("paper")[0]
