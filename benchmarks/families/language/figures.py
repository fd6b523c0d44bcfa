"""Figures of validation perplexity over training and depth, absolute and relative to backpropagation."""

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from math import ceil
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from benchmarks.config import Config
from benchmarks.errors import ResultsError
from benchmarks.registry import FIGURES
from benchmarks.run.records import RunFolder

_COLUMNS = 5
"""Alignment panels per row, one panel per rule."""
_NEAR_BP = (0.85, 1.35)
"""Range of perplexity ratios in the enlarged panel."""
_COLOURS = {
    "dfa": "C0",
    "dfa, last block exact": "C1",
    "identity": "C2",
    "identity, damped": "C3",
    "identity, gains": "C4",
    "fdfa": "C5",
    "identity + fdfa": "C6",
    "dkp": "C7",
    "grape": "C8",
    "kolen_pollack": "C9",
    "highway, one wave": "lightsteelblue",
    "highway, two waves": "royalblue",
    "highway, one learned wave": "lightsalmon",
    "highway, two learned waves": "tomato",
    "highway, one fitted wave": "mediumseagreen",
    "highway, two fitted waves": "navy",
    "highway, four fitted waves": "black",
    "window": "darkkhaki",
    "shallow": "0.6",
}
"""Colour of a rule, by its label, the same in all figures."""
_OTHER_COLOURS = ("teal", "crimson", "indigo", "peru", "slategray")
"""Of further labels, in their order."""


@FIGURES.register("learning_curves")
def learning_curves(runs: Mapping[str, Config]) -> Figure:
    """Draw validation perplexity over steps, one curve per run, with a line at the best possible one if it is known.

    Args:
        runs: label → configuration of a run.

    Raises:
        ResultsError: the history of a run is missing or damaged.
    """
    figure = Figure(figsize=(6.4, 5), layout="constrained")
    axes = figure.subplots()
    best: dict[str, float] = {}
    described: dict[str, None] = {}
    for label, config in runs.items():
        curve = _perplexities(config)
        axes.plot(list(curve), list(curve.values()), marker=".", label=label)
        data = _data(config)
        described[_data_name(data)] = None
        if "best_perplexity" in data["notes"]:
            best[data["name"]] = float(data["notes"]["best_perplexity"])
    for value in best.values():
        axes.axhline(value, color="0.5", linestyle="--", linewidth=1, label=f"best possible ({value:.1f})")
    axes.set(xlabel="optimiser steps", ylabel="validation perplexity per token", yscale="log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.2, 1.5, 2, 3, 4, 5, 7)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(color="0.9")
    axes.set_title(", ".join(described), fontsize=11)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure


@FIGURES.register("perplexity_ratios")
def perplexity_ratios(runs: Mapping[str, Config]) -> Figure:
    """Draw validation perplexities over the first run's (backpropagation) at the same step, and alignments below.

    A second panel enlarges ratios near 1, if there are others. Each rule whose alignment was measured repeatedly has
    a panel of its cosines at every point.

    Args:
        runs: label → configuration of a run; the first is the reference.

    Raises:
        ResultsError: the history of a run is missing or damaged, or shares no step with the first run's.
    """
    curves = {label: _perplexities(config) for label, config in runs.items()}
    reference, *others = curves
    measured = {label: _alignments(runs[label]) for label in others}
    aligned = {label: points for label, points in measured.items() if any(len(steps) > 1 for steps in points.values())}
    rows = ceil(len(aligned) / _COLUMNS)
    figure = Figure(figsize=(10, 3.8 + 2 * rows), layout="constrained")
    grid = figure.add_gridspec(1 + rows, 2 * _COLUMNS, height_ratios=[2.2] + [1.0] * rows)
    ratios: dict[str, dict[int, float]] = {}
    for label in others:
        shared = [step for step in curves[label] if step in curves[reference]]
        ratios[label] = {step: curves[label][step] / curves[reference][step] for step in shared}
        if not ratios[label]:
            raise ResultsError(f"the runs '{label}' and '{reference}' were evaluated at different steps")
    lowest, highest = _NEAR_BP
    if all(lowest <= ratio <= highest for curve in ratios.values() for ratio in curve.values()):
        panels = [figure.add_subplot(grid[0, :])]
    else:
        panels = [figure.add_subplot(grid[0, :_COLUMNS]), figure.add_subplot(grid[0, _COLUMNS:])]
    colours = _colours(ratios)
    for axes in panels:
        for label, curve in ratios.items():
            axes.plot(list(curve), list(curve.values()), marker=".", color=colours[label], label=label)
    _finish_ratios(panels, reference, "optimiser steps")
    figure.suptitle(_setting(runs[reference]), fontsize=11)
    drawn: list[Axes] = []
    most = max((len(steps) for steps in aligned.values()), default=0)
    for index, (label, steps) in enumerate(aligned.items()):
        row, place = 1 + index // _COLUMNS, 2 * (index % _COLUMNS)
        first = drawn[0] if drawn else None
        axes = figure.add_subplot(grid[row, place : place + 2], sharex=first, sharey=first)
        drawn.append(axes)
        _draw_alignments(axes, steps, most)
        axes.set_title(label, fontsize=9)
        if place == 0:
            axes.set_ylabel(f"cosine with {reference}", fontsize=8)
    if drawn:
        shown = max((axes.get_legend_handles_labels() for axes in drawn), key=lambda found: len(found[1]))
        legend = figure.legend(*shown, loc="outside lower center", ncols=len(shown[1]), fontsize=8, frameon=False)
        legend.set_title("feedback point, from the input up", FontProperties(size=8))
    return figure


@FIGURES.register("perplexity_ratio_by_depth")
def perplexity_ratio_by_depth(runs: Mapping[str, Config]) -> Figure:
    """Draw each rule's best validation perplexity over the first rule's against depth.

    A second panel enlarges ratios near 1. Below each depth stands the first rule's own perplexity: where that rule does
    badly, the ratios of all others are small.

    Args:
        runs: label "<rule>, <number of blocks>" → configuration of a run.

    Raises:
        ResultsError: the history of a run is missing or damaged.
    """
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    panels: list[Axes] = list(figure.subplots(1, 2))
    best: dict[str, dict[int, float]] = {}
    for label, config in runs.items():
        rule, _, blocks = label.rpartition(", ")
        best.setdefault(rule, {})[int(blocks)] = min(_perplexities(config).values())
    reference, *others = best
    colours = _colours(others)
    for axes in panels:
        for rule in others:
            blocks_of_rule = sorted(best[rule])
            ratios = [best[rule][blocks] / best[reference][blocks] for blocks in blocks_of_rule]
            axes.plot(blocks_of_rule, ratios, marker="o", color=colours[rule], label=rule)
        axes.set_xscale("log", base=2)
        depths = sorted(best[reference].items())
        axes.set_xticks([blocks for blocks, _ in depths], [f"{blocks}\n({value:.0f})" for blocks, value in depths])
    _finish_ratios(panels, reference, f"blocks (perplexity of {reference})")
    figure.suptitle(_data_name(_data(next(iter(runs.values())))), fontsize=11)
    return figure


def _colours(labels: Iterable[str]) -> dict[str, str]:
    """Return the colour of each rule, which does not depend on the others that are drawn if it has a fixed one."""
    labels = list(labels)
    further = [label for label in labels if label not in _COLOURS]
    return {
        label: _COLOURS.get(label) or _OTHER_COLOURS[further.index(label) % len(_OTHER_COLOURS)] for label in labels
    }


def _finish_ratios(panels: Sequence[Axes], reference: str, over: str) -> None:
    """Add the line at 1, grid, labels and legend to the panels of ratios, of which a second is the enlarged one."""
    for axes in panels:
        axes.axhline(1, color="0.5", linestyle="--", linewidth=1)
        axes.grid(color="0.9")
        axes.set_xlabel(over)
    panels[0].set_ylabel(f"validation perplexity / that of {reference}")
    for near in panels[1:]:
        near.set(ylim=_NEAR_BP, title="near 1")
    panels[-1].legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))


def _perplexities(config: Config) -> dict[int, float]:
    """Return step → validation perplexity."""
    return RunFolder.of(config).curve("valid/perplexity")


def _alignments(config: Config) -> dict[str, dict[int, float]]:
    """Return point → step → cosine, points from the input up: after training, and at evaluations if measured there."""
    folder = RunFolder.of(config)
    history, record = folder.history(), folder.read() or {"metrics": {}}
    at_end = {name: value for name, value in record["metrics"].items() if fnmatchcase(name, "alignment/?*/mean")}
    last = history[-1]["step"] if history else 0
    return {
        name: {row["step"]: row[name] for row in history if name in row} | {last: value}
        for name, value in at_end.items()
    }


def _draw_alignments(axes: Axes, by_point: Mapping[str, Mapping[int, float]], most: int) -> None:
    """Draw one curve per point, darker towards the input, in colours that are the same in panels of up to `most`."""
    for index, over_steps in enumerate(by_point.values()):
        shade = colormaps["viridis"](index / max(1, most - 1) * 0.85)
        steps = sorted(over_steps)
        values = [over_steps[step] for step in steps]
        axes.plot(steps, values, marker=".", color=shade, linewidth=1, label=str(index + 1))
    axes.axhline(0, color="0.5", linewidth=0.8)
    axes.grid(color="0.9")
    axes.tick_params(labelsize=7)
    axes.set_xlabel("optimiser steps", fontsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(4))


def _setting(config: Config) -> str:
    """Name the data of a run, and its model's blocks where the configuration does."""
    options = config.model.options
    blocks = [f"{options['blocks']} {options.get('normalisation', 'post')}-norm blocks"] if "blocks" in options else []
    return ", ".join([_data_name(_data(config)), *blocks, f"seed {config.seed}"])


def _data(config: Config) -> dict[str, Any]:
    """Return the data entry of a run's record: name, kind and notes."""
    record = RunFolder.of(config).read() or {"data": {"name": config.task.name, "kind": "real", "notes": {}}}
    found: dict[str, Any] = record["data"]
    return found


def _data_name(data: dict[str, Any]) -> str:
    return data["name"] if data["kind"] == "real" else f"{data['name']} (generated stand-in data)"
