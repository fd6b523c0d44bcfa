"""Learning curves: validation perplexity over the steps of several runs."""

from collections.abc import Mapping

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
