"""Samples and learning curves of trained models, and the speed measurement."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor, nn

from benchmarks.commands import bench as bench_command
from benchmarks.commands.sample import main
from benchmarks.config import Config, compose_config, identity, resolve
from benchmarks.errors import ConfigError, ResultsError
from benchmarks.families.language.figures import (
    _colours,
    _draw_alignments,
    learning_curves,
    perplexity_ratio_by_depth,
    perplexity_ratios,
)
from benchmarks.families.language.sample import continuation, sample_text
from benchmarks.run.execute import execute
from benchmarks.run.records import RunFolder
from benchmarks.speed import language as bench_module
from benchmarks.speed.language import Setting, bench, expected_first_loss
from benchmarks.tables.figure import load_figure
from tests.conftest import Command


@pytest.fixture
def run(tmp_path: Path) -> Config:
    chosen = ["task=wikitext103", "model=transformer_macro", "rule=dfa", "scale=smoke"]
    config = resolve(
        compose_config([*chosen, f"run.results_dir={tmp_path}", "run.wandb=disabled", "run.progress=false"])
    )
    assert execute(config)["status"] == "done"
    return config


class Counting(nn.Module):
    """Model that predicts the number of tokens it sees, modulo five, with certainty."""

    def forward(self, tokens: Tensor) -> Tensor:
        scores = torch.full((*tokens.shape, 5), -1e9)
        scores[..., tokens.shape[1] % 5] = 0.0
        return scores


def test_a_continuation_sees_the_last_window_and_keeps_the_beginning() -> None:
    ids = continuation(Counting(), torch.tensor([4, 4]), tokens=5, window=4, temperature=1.0)
    assert ids.tolist() == [4, 4, 2, 3, 4, 4, 4]


def test_draws_follow_the_temperature() -> None:
    scores = torch.tensor([0.0, math.log(3.0)])

    class Fixed(nn.Module):
        def forward(self, tokens: Tensor) -> Tensor:
            return scores.expand(*tokens.shape, 2)

    for temperature, expected in ((1.0, 3 / 4), (0.5, 9 / 10)):
        torch.manual_seed(0)
        ids = continuation(Fixed(), torch.tensor([0]), 2000, 8, temperature)
        assert ids[1:].float().mean().item() == pytest.approx(expected, abs=0.03)


def test_the_command_prints_prompt_and_continuation(run: Config, command: Command) -> None:
    folder = str(RunFolder.of(run).path)
    code, out, err = command(main, folder, "--prompt", "that thbai", "--tokens", "7", "--seed", "3")
    assert (code, err) == (0, "") and out.startswith("that thbai ") and len(out.split()) == 9
    assert command(main, folder, "--prompt", "that thbai", "--tokens", "7", "--seed", "3")[1] == out
    assert command(main, folder, "--prompt", "that thbai", "--tokens", "7", "--seed", "4")[1] != out
    code, _, err = command(main, folder, "--prompt", "hello")
    assert code == 2 and "has no word 'hello'" in err
    code, _, err = command(main, folder + "-not")
    assert code == 2 and "holds no finished run" in err


def test_what_cannot_be_sampled_is_told(run: Config) -> None:
    folder = RunFolder.of(run).path
    with pytest.raises(ConfigError, match="--temperature must be positive and finite, got 0"):
        sample_text(folder, "", 1, 0.0, 0)
    for file in folder.glob("*.safetensors"):
        file.write_bytes(b"not weights")
    with pytest.raises(ResultsError, match="do not fit the run's model"):
        sample_text(folder, "", 3, 1.0, 0)
    for file in folder.glob("*.safetensors"):
        file.unlink()
    with pytest.raises(ResultsError, match="no finished run in"):
        sample_text(folder, "", 3, 1.0, 0)


def _drawn(line: Line2D) -> tuple[list[float], list[float]]:
    """Return x and y of a line."""
    x, y = line.get_data()
    return np.asarray(x).tolist(), np.asarray(y).tolist()


def test_curves_are_the_histories_and_the_best_possible(run: Config) -> None:
    figure = learning_curves({"DFA": run})
    assert isinstance(figure, Figure)
    (axes,) = figure.axes
    (steps, perplexities), (_, best) = map(_drawn, axes.lines)
    history = RunFolder.of(run).history()
    assert steps == [row["step"] for row in history] == [3, 6]
    assert perplexities == [row["valid/perplexity"] for row in history]
    record = RunFolder.of(run).read()
    assert record is not None and best[0] == record["data"]["notes"]["best_perplexity"]
    assert "stand-in" in axes.get_title()
    RunFolder.of(run).metrics.unlink()
    with pytest.raises(ResultsError, match="is missing or empty"):
        learning_curves({"DFA": run})


def test_ratios_are_those_of_the_histories(run: Config) -> None:
    folder = RunFolder.of(run)
    history, found = folder.history(), folder.read()
    assert found is not None
    other = replace(run, seed=run.seed + 1)
    for row, cosine in zip(history, (0.1, 0.2), strict=True):
        RunFolder.of(other).path.mkdir(parents=True, exist_ok=True)
        changed = {"valid/perplexity": 2.5 * row["valid/perplexity"], "alignment/blocks.0/mean": cosine}
        RunFolder.of(other).append_metrics(row | changed)
    aligned = {"alignment/mean": 0.3, "alignment/blocks.0/mean": 0.3, "alignment/last/mean": 0.9, "norm/last/bp": 1.0}
    RunFolder.of(other).finish(found | {"seed": other.seed, "config_hash": identity(other), "metrics": aligned})
    over_steps, near, alignments = perplexity_ratios({"bp": run, "other": other}).axes
    steps, ratios = _drawn(over_steps.lines[0])
    assert ratios == pytest.approx([2.5, 2.5])
    assert steps == [3, 6]
    assert _drawn(near.lines[0]) == (steps, ratios) and near.get_ylim() == (0.85, 1.35)
    assert alignments.get_title() == "other"
    lowest, highest, _ = map(_drawn, alignments.lines)
    assert lowest == ([3, 6], [0.1, 0.3]) and highest == ([6], [0.9])
    axes, near = perplexity_ratio_by_depth({"bp, 2": run, "bp, 4": other, "x, 2": other, "x, 4": run}).axes
    depths, ratios = _drawn(axes.lines[0])
    assert depths == [2, 4]
    assert _drawn(near.lines[0]) == (depths, ratios)
    assert ratios == pytest.approx([2.5, 1 / 2.5])


def test_a_point_has_one_colour_in_panels_of_any_number_of_points() -> None:
    """One legend stands for all of them."""
    few, many = Figure().subplots(1, 2)
    for axes, count in ((few, 3), (many, 4)):
        _draw_alignments(axes, {f"point {index}": {1: 0.5} for index in range(count)}, 4)
    colours = [[line.get_color() for line in axes.lines[:-1]] for axes in (few, many)]
    assert len(set(colours[1])) == 4 and colours[0] == colours[1][:3]


@pytest.mark.parametrize("name", ["figure_6", "figure_6_wikitext2", "figure_6_depth"])
def test_figure_6_begins_with_backpropagation(name: str) -> None:
    spec = load_figure(name)
    assert spec.cells[0].rule == "bp" and len({cell.overrides for cell in spec.cells}) == len(spec.cells)


@pytest.mark.parametrize("name", ["figure_l1", "figure_l2"])
def test_curves_are_of_six_different_runs(name: str) -> None:
    spec = load_figure(name)
    assert spec.file.draw == "learning_curves" and len({cell.overrides for cell in spec.cells}) == 6
    assert spec.stand_in is (name == "figure_l1")


def test_the_bench_measures_every_rule_and_pytorchs_own_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_module, "in_subprocess", lambda work, what: work())  # saves the imports of many processes
    options = (("width", 16), ("blocks", 2), ("heads", 2), ("hidden", 32), ("dropout", 0.0))
    found = bench(["torch", "bp", "macro"], Setting(2, 16, 200, options=options), 3)
    assert set(json.loads(json.dumps(found))["rules"]) == {"torch", "bp", "macro"}
    for measured in found["rules"].values():
        assert measured["finite"] and measured["seconds_per_step"] > 0
        assert 50 < measured["peak_memory_mb"] < 5000
    assert found["rules"]["bp"]["ratio_to_bp"] == 1
    for rule in ("bp", "macro"):
        assert found["rules"][rule]["first_loss"] == pytest.approx(expected_first_loss(200, 16), rel=0.05)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rules", "bp,nope"], "unknown rule 'nope'; known: torch, bp, macro, micro, shallow"),
        (["--rules", ","], "no rule given; known: torch"),
        (["--device", "abacus"], "device 'abacus' is not usable here"),
        (["--steps", "0"], "argument --steps: must be from 1 to"),
    ],
)
def test_what_cannot_be_benched(arguments: list[str], message: str, tmp_path: Path, command: Command) -> None:
    code, _, err = command(bench_command.main, "language", *arguments, "--out", str(tmp_path / "found.json"))
    assert code == 2 and err.startswith(f"error: {message}") and err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_rule_has_one_colour_in_all_figures() -> None:
    """Further labels have others, among themselves as well, as long as there are not too many."""
    names = ["figure_6", "figure_6_wikitext2", "figure_6_long", "figure_6_long_post"]
    panels = [list(load_figure(name).file.panels)[1:] for name in names]
    labels = sorted({label for found in panels for label in found})
    colours = _colours(labels)
    assert len(set(colours.values())) == len(labels)
    assert all(_colours(found) == {label: colours[label] for label in found} for found in panels)
    more = _colours([*labels, "one", "another"])
    assert len(set(more.values())) == len(labels) + 2
