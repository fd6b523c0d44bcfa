"""Learning curves: validation perplexity over the steps of several runs, as it is and relative to one of them."""

from collections.abc import Mapping
from fnmatch import fnmatchcase

from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter

from benchmarks.config import Config
from benchmarks.errors import ResultsError
from benchmarks.figures import FIGURES
from benchmarks.records import RunFolder


@FIGURES.register("learning_curves")
def learning_curves(runs: Mapping[str, Config]) -> Figure:
    """One curve a run, from its history; a line marks the best possible perplexity where it is known.

    Raises:
        ResultsError: a run has no history.
    """
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    best: dict[str, float] = {}
    described: dict[str, None] = {}
    for label, config in runs.items():
        folder = RunFolder.of(config)
        history, record = folder.history(), folder.read()
        if not history or record is None:
            raise ResultsError(f"the run '{label}' in {folder.path} has no history to draw")
        steps = [row["step"] for row in history]
        axes.plot(steps, [row["valid/perplexity"] for row in history], marker=".", label=label)
        data = record["data"]
        described[data["name"] if data["kind"] == "real" else f"{data['name']} (generated stand-in data)"] = None
        if "best_perplexity" in data["notes"]:
            best[data["name"]] = float(data["notes"]["best_perplexity"])
    for value in best.values():
        axes.axhline(value, color="0.5", linestyle="--", linewidth=1, label=f"best possible ({value:.1f})")
    axes.set(xlabel="optimiser steps", ylabel="validation perplexity per token", yscale="log")
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_formatter(ScalarFormatter() if max(axes.get_ylim()) < 1000 else NullFormatter())
    axes.grid(color="0.9")
    axes.set_title(", ".join(described), fontsize=11)
    axes.legend(frameon=False, fontsize=9)
    return figure


@FIGURES.register("perplexity_ratios")
def perplexity_ratios(runs: Mapping[str, Config]) -> Figure:
    """Validation perplexity over the first run's (backpropagation) at the same step, beside alignment at every point.

    Raises:
        ResultsError: a run has no history, or none of the first run's steps.
    """
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    over_steps, by_point = figure.subplots(1, 2)
    curves = {label: _perplexities(label, config) for label, config in runs.items()}
    reference, *others = curves
    for label in others:
        shared = [step for step in curves[label] if step in curves[reference]]
        if not shared:
            raise ResultsError(f"the runs '{label}' and '{reference}' were evaluated at different steps")
        ratios = [curves[label][step] / curves[reference][step] for step in shared]
        (line,) = over_steps.plot(shared, ratios, marker=".", label=label)
        aligned = _alignments(runs[label])
        by_point.plot(range(1, len(aligned) + 1), aligned, marker="o", color=line.get_color(), label=label)
    over_steps.axhline(1, color="0.5", linestyle="--", linewidth=1)
    over_steps.set(xlabel="optimiser steps", ylabel=f"validation perplexity / that of {reference}")
    by_point.set(xlabel="feedback point, from the input up", ylabel=f"cosine with {reference} after training")
    by_point.xaxis.get_major_locator().set_params(integer=True)
    for axes in (over_steps, by_point):
        axes.grid(color="0.9")
    shown = over_steps.get_legend_handles_labels()
    figure.legend(*shown, loc="outside lower center", ncols=5, frameon=False, fontsize=9)
    figure.suptitle(_data_name(runs[reference]), fontsize=11)
    return figure


@FIGURES.register("perplexity_ratio_by_depth")
def perplexity_ratio_by_depth(runs: Mapping[str, Config]) -> Figure:
    """Best validation perplexity over that of the run "<first rule>, <blocks>"; labels end in the number of blocks."""
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    best: dict[str, dict[int, float]] = {}
    for label, config in runs.items():
        rule, _, blocks = label.rpartition(", ")
        best.setdefault(rule, {})[int(blocks)] = min(_perplexities(label, config).values())
    reference, *others = best
    for rule in others:
        blocks_of_rule = sorted(best[rule])
        ratios = [best[rule][blocks] / best[reference][blocks] for blocks in blocks_of_rule]
        axes.plot(blocks_of_rule, ratios, marker="o", label=rule)
    axes.axhline(1, color="0.5", linestyle="--", linewidth=1)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set(xlabel="blocks", ylabel=f"validation perplexity / that of {reference}")
    axes.grid(color="0.9")
    axes.legend(frameon=False, fontsize=9)
    axes.set_title(_data_name(next(iter(runs.values()))), fontsize=11)
    return figure


def _perplexities(label: str, config: Config) -> dict[int, float]:
    """Validation perplexity by step."""
    history = RunFolder.of(config).history()
    if not history:
        raise ResultsError(f"the run '{label}' in {RunFolder.of(config).path} has no history to draw")
    return {row["step"]: row["valid/perplexity"] for row in history}


def _alignments(config: Config) -> list[float]:
    """Of every point, from the input up; empty where the rule has none."""
    record = RunFolder.of(config).read() or {"metrics": {}}
    return [value for key, value in record["metrics"].items() if fnmatchcase(key, "alignment/?*/mean")]


def _data_name(config: Config) -> str:
    record = RunFolder.of(config).read()
    data = {"name": config.task.name, "kind": "real"} if record is None else record["data"]
    return data["name"] if data["kind"] == "real" else f"{data['name']} (generated stand-in data)"
