"""From the command to the table, with a toy in the place of the paper's cells."""

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from benchmarks.commands import records, reproduce, tune
from benchmarks.config import Config
from benchmarks.registry import FIGURES
from benchmarks.run.records import RunFolder
from benchmarks.tables import make, targets
from benchmarks.tables.cells import Cell
from benchmarks.tables.figure import FigureSpec
from benchmarks.tables.figure_file import FigureFile
from benchmarks.tables.spec import TableSpec, load_spec
from benchmarks.tables.targets import target_names
from benchmarks.utils.paths import REPOSITORY
from tests.conftest import TOY, Command, Toys


def toy_table(epochs: int = 1) -> TableSpec:
    """Table 3 with two of its cells, filled by toy runs."""
    cells = tuple(
        Cell(
            f"gcn/{rule}", "cora", ("task=toy", "model=toy_mlp", f"rule={rule}", f"trainer.epochs={epochs}"), data="toy"
        )
        for rule in ("bp", "dfa")
    )
    return replace(load_spec("table_3"), cells=cells, rows=("gcn/bp", "gcn/dfa"), columns=("cora",))


@pytest.fixture(autouse=True)
def _toy_in_table_3(monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = targets.load_spec
    monkeypatch.setattr(
        targets, "load_spec", lambda name, **options: toy_table() if name == "table_3" else genuine(name, **options)
    )


def _arguments(toys: Toys, *more: str) -> list[str]:
    settings = ["--set", f"plugins=[{TOY}]", "--set", "run.wandb=disabled", "--jobs", "1"]
    return ["table_3", "--scale", "mini", "--seeds", "2", "--results", str(toys.results), *settings, *more]


def _tables(toys: Toys) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (toys.results / "tables").iterdir()}


def test_the_figure_of_a_table_follows_it(toys: Toys, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def draw(runs: Mapping[str, Config]) -> Figure:
        figure = Figure(figsize=(2, 1))
        figure.text(0, 0, ", ".join(runs))
        return figure

    spec = toy_table()
    spec = replace(spec, file=replace(spec.file, figures=["figure_0"]))
    cost = {"paper": 1.0, "mini": 1.0, "smoke": 1.0}
    monkeypatch.setitem(FIGURES._factories, "toy_draw", draw)
    monkeypatch.setattr(targets, "load_spec", lambda name, **options: spec)
    file = FigureFile("Toys", "toy_draw", {}, cost)
    monkeypatch.setattr(make, "load_figure", lambda name: FigureSpec(name, file, spec.cells))
    code, out, err = command(reproduce.main, *_arguments(toys))
    assert (code, err) == (0, "") and out.endswith("figures/figure_0.png\n") and out.count("[4/4") == 1
    assert (toys.results / "figures" / "figure_0.png").exists()

    monkeypatch.setitem(FIGURES._factories, "toy_draw", lambda runs: runs["none"])
    code, out, err = command(reproduce.main, *_arguments(toys))
    assert code == 2 and err == "error: table_3: figure_0 cannot be drawn: 'toy_draw' fails with KeyError: 'none'\n"

    monkeypatch.setenv("TOY_FAULT", "nan@1")
    other = replace(spec.cells[0], overrides=(*spec.cells[0].overrides, "optimizer.lr=0.5"))
    monkeypatch.setattr(make, "load_figure", lambda name: FigureSpec(name, file, (other,)))
    code, out, err = command(reproduce.main, *_arguments(toys))
    assert "not drawn: Figure 0 cannot be drawn" in out, "the table is there all the same"


def test_plan_run_table_and_nothing_the_second_time(
    toys: Toys, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = command(reproduce.main, *_arguments(toys))
    assert (code, err) == (0, "")
    assert out.startswith("Table 3: scale mini (as asked)\n")
    assert "4 runs to do" in out and "[4/4" in out
    records = [RunFolder(path.parent).read() for path in toys.results.rglob("result.json")]
    assert len(records) == 4
    first = _tables(toys)
    assert set(first) == {"table_3.md", "table_3.csv", "table_3.tex"}
    shown = first["table_3.md"].decode()
    assert shown in out
    values = [100 * record["metrics"]["test/accuracy"] for record in records if record and record["rule"] == "dfa"]
    mean = sum(values) / 2
    assert f"{mean:.1f} ± {abs(values[0] - values[1]) / 2**0.5:.1f}" in shown
    lines = first["table_3.csv"].decode().splitlines()
    assert [line.split(",")[1] for line in lines[1:]] == ["gcn/bp", "gcn/dfa"]

    monkeypatch.setenv("TOY_FAULT", "raise@1")  # nothing is trained again
    code, out, err = command(reproduce.main, *_arguments(toys))
    assert (code, err) == (0, "") and "0 runs to do" in out
    assert _tables(toys) == first


@pytest.mark.parametrize("setting", ["+optimizer.lrr=3", "optimizer.lrr=3"])
def test_a_key_outside_of_the_schema_is_refused(toys: Toys, command: Command, setting: str) -> None:
    code, out, err = command(reproduce.main, *_arguments(toys, "--set", setting))
    assert (code, out) == (2, "")
    assert err == "error: table_3: unknown key 'optimizer.lrr'; did you mean 'optimizer.lr'?\n"


def test_the_nearest_name_and_a_missing_folder_are_told_once(command: Command) -> None:
    code, _, err = command(reproduce.main, "tabel_3")
    assert code == 2 and err.startswith("error: unknown table or figure 'tabel_3'; did you mean 'table_3'? known: ")
    code, _, err = command(reproduce.main, "table_3", "--config-dir", "nowhere")
    assert code == 2 and err.startswith("error: argument --config-dir: there is no folder 'nowhere'; see ")


def test_a_device_that_cannot_be_meant_is_refused_whatever_is_recorded(toys: Toys, command: Command) -> None:
    assert command(reproduce.main, *_arguments(toys))[0] == 0
    code, out, err = command(reproduce.main, *_arguments(toys, "--set", "run.device=cdua"))
    assert (code, out) == (2, "") and err.startswith("error: device 'cdua' is not usable here: ")


def test_dry_prints_the_plan_and_stops(toys: Toys, command: Command) -> None:
    code, out, err = command(reproduce.main, *_arguments(toys, "--dry"))
    assert (code, err) == (0, "")
    assert "4 runs to do" in out and "2 to run" in out
    assert not toys.results.exists()


def test_cells_can_be_run_by_themselves(toys: Toys, command: Command) -> None:
    code, out, err = command(reproduce.main, *_arguments(toys, "--cells", "*:coral,gcn/*:*"))
    assert (code, out) == (2, "")
    assert (
        err
        == "error: table_3: --cells: no cell matches '*:coral'; rows: gcn/bp, gcn/dfa, or cells such as gcn/bp:cora\n"
    )

    code, out, err = command(reproduce.main, *_arguments(toys, "--cells", "gcn/dfa"))
    assert (code, err) == (0, "") and "1 other cell left as it is" in out and "2 runs to do" in out
    records = [RunFolder(path.parent).read() for path in toys.results.rglob("result.json")]
    assert [record["rule"] for record in records if record] == ["dfa", "dfa"]
    assert "missing (0 of 2 seeds done; not run): gcn/bp:cora" in _tables(toys)["table_3.md"].decode()

    code, out, err = command(reproduce.main, *_arguments(toys))
    assert (code, err) == (0, "") and "2 runs to do" in out and "missing" not in _tables(toys)["table_3.md"].decode()


def test_what_fails_is_listed_shown_and_run_again_on_request(
    toys: Toys, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOY_FAULT", "nan@2")
    monkeypatch.setenv("TOY_FAULT_SEED", "1")
    for _ in range(2):  # the second time the record says so
        code, out, err = command(reproduce.main, *_arguments(toys))
        assert code == 1
        assert len(err.splitlines()) == 2
        assert all("seed 1: " in line and "loss is nan at step 5" in line for line in err.splitlines())
        assert "diverged" in _tables(toys)["table_3.md"].decode()
    monkeypatch.delenv("TOY_FAULT")
    code, out, err = command(reproduce.main, *_arguments(toys, "--set", "run.retry=true"))
    assert (code, err) == (0, "") and "2 runs to do" in out
    assert "diverged" not in _tables(toys)["table_3.md"].decode()


def test_a_run_that_cannot_be_begun_gives_its_reason_in_the_table(toys: Toys, command: Command) -> None:
    code, _, err = command(reproduce.main, *_arguments(toys, "--set", "+model.options.dropout=3.0"))
    assert code == 1 and "dropout probability" in err
    assert "dropout probability" in _tables(toys)["table_3.md"].decode()


def test_runs_of_the_same_name_do_not_share_their_fate(
    toys: Toys, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cells that differ in an optimiser's setting alone: one cannot be begun, the other is done."""
    shared = ("task=toy", "model=toy_mlp", "rule=bp", "trainer.epochs=1")
    bad = Cell("gcn/dfa", "cora", (*shared, "+optimizer.options.colour=1"), data="toy")
    cells = (Cell("gcn/bp", "cora", shared, data="toy"), bad)
    monkeypatch.setattr(targets, "load_spec", lambda name, **options: replace(toy_table(), cells=cells))
    command(reproduce.main, *_arguments(toys, "--seeds", "1"))
    code, _, err = command(reproduce.main, *_arguments(toys, "--seeds", "2"))
    assert code == 1 and len(err.splitlines()) == 2 and "no option 'colour'" in err
    text = _tables(toys)["table_3.md"].decode()
    assert "Not complete: missing" in text and text.count("Not complete") == 1 and "gcn/dfa:cora" in text


def test_a_target_that_cannot_be_made_does_not_stop_the_others(
    toys: Toys, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets, "known_tables", lambda: ["table_0", "table_3"])
    monkeypatch.setattr(targets, "known_figures", list)
    code, _, err = command(reproduce.main, "all", *_arguments(toys)[1:])
    assert code == 2
    assert len(err.splitlines()) == 1 and err.startswith("error: table_0: ")
    assert len(_tables(toys)) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["table_9"], "unknown table or figure 'table_9'; known: table_1, "),
        (["table_3", "--scale", "huge"], "unknown scale 'huge'; known: auto, paper, mini, smoke"),
        (["table_3", "--seeds", "0"], "--seeds: must be from 1 to 2147483647, got 0"),
        (["table_3", "--set", "trainer.colour=red"], "trainer.colour"),
        (["table_a2", "--rules", "hebb", "--scale", "smoke"], "unknown rule 'hebb'; known: bp, calibrate, dfa"),
    ],
)
def test_bad_requests_are_one_line(toys: Toys, command: Command, arguments: list[str], message: str) -> None:
    code, _, err = command(reproduce.main, *arguments, "--results", str(toys.results), "--set", f"plugins=[{TOY}]")
    assert code == 2
    assert err.startswith("error: ") and err.count("\n") == 1 and message in err
    assert not toys.results.exists()


@pytest.mark.parametrize(
    ("name", "asked", "shown"),
    [
        ("mine", "mine", "Table mine"),
        ("table_my-Own", "table_my-own", "Table my-Own"),
        ("own_2", "Own-2", "Table own 2"),
        ("3", "3", "Table 3"),
    ],
)
def test_a_table_of_ones_own_may_have_any_name(
    toys: Toys, command: Command, tmp_path: Path, name: str, asked: str, shown: str
) -> None:
    folder = tmp_path / "own"
    (folder / "table").mkdir(parents=True)
    text = (REPOSITORY / "configs" / "table" / "table_movielens.yaml").read_text()
    (folder / "table" / f"{name}.yaml").write_text(text.replace("heading:", "# heading:"))
    own = ["--config-dir", str(folder), "--scale", "smoke", "--results", str(toys.results)]
    code, out, err = command(reproduce.main, asked, "--dry", *own)
    assert (code, err) == (0, "") and out.startswith(f"{shown}: scale smoke (as asked)")
    code, _, err = command(tune.main, asked, "--dry", *own[:4])
    assert (code, err) == (2, f"error: table file {name}.yaml names no `rates` to try\n")
    code, _, err = command(records.main, "export", asked, *own)
    assert code == 2 and err.startswith(f"error: {name}: {shown} has no recorded runs")


def test_a_results_folder_that_cannot_be_written(toys: Toys, command: Command) -> None:
    toys.results.write_text("in the way")
    code, _, err = command(reproduce.main, *_arguments(toys))
    assert code == 2 and "cannot write" in err
    assert all(line.startswith("error: ") for line in err.splitlines())
    assert toys.results.read_text() == "in the way"


def test_two_at_once_do_not_spoil_each_other(toys: Toys, command: Command, tmp_path: Path) -> None:
    code = (
        "import sys; from tests import conftest; from tests.commands import test_reproduce as t;"
        "from benchmarks.commands import reproduce; from benchmarks.tables import make, targets;"
        "store = conftest.ConfigStore.instance().store;"
        "[store(group=g, name=n, node=node) for (g, n), node in conftest._CHOICES.items()];"
        "targets.load_spec = lambda name, **options: t.toy_table();"
        "print('ready', flush=True); sys.stdin.readline(); reproduce.main(sys.argv[1:])"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, *_arguments(toys)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=REPOSITORY,
        env=dict(os.environ),
        text=True,
    )
    assert other.stdin is not None and other.stdout is not None
    assert other.stdout.readline() == "ready\n"
    other.stdin.write("go\n")
    other.stdin.flush()
    mine = command(reproduce.main, *_arguments(toys))
    _, their_err = other.communicate(timeout=120)
    assert (mine[0], other.returncode, their_err) == (0, 0, "")
    together = _tables(toys)
    assert len(list(toys.results.rglob("result.json"))) == 4
    histories = [RunFolder(path.parent).history() for path in toys.results.rglob("result.json")]
    assert [len(history) for history in histories] == [1, 1, 1, 1]
    command(reproduce.main, *_arguments(toys))
    assert _tables(toys) == together


def test_what_takes_hours_is_made_only_by_name() -> None:
    assert "table_a5" in target_names(["all"]) and "figure_a1" in target_names(["all"])
    assert not {"table_a5_reduced", "figure_1_reduced", "figure_1_curves"} & set(target_names(["all"]))
    assert target_names(["table-A5-reduced"]) == ["table_a5_reduced"]
    assert target_names(["table_3", "all", "Table-3", "table_a5_reduced"]) == [
        "table_3",
        *(name for name in target_names(["all"]) if name != "table_3"),
        "table_a5_reduced",
    ]
    assert load_spec("table_a5_reduced").heading == "Table A5 reduced"
