"""Table and figure of networks in stages: what was measured, and what the model of schedules predicts."""

from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from benchmarks.speed.report import conditions
from benchmarks.speed.workloads import load_settings
from benchmarks.utils.text import markdown_page, markdown_table
from dfa.pipeline.timeline import Costs, predict

Row = dict[str, Any]
_TITLES = {"gpipe": "GPipe", "1f1b": "1F1B", "zero_bubble": "zero bubble (ZB-H1)", "feedback": "feedback"}
_BASELINES = {"ScheduleGPipe": "BP, GPipe", "Schedule1F1B": "BP, 1F1B", "one_process": "BP, one process, all cores"}
_EXECUTIONS = {
    "stages": "stages",
    "one_process": "one process",
    "recompute": "one process, memory=recompute",
    "recompute_parallel": "one process, memory=recompute, parallel",
}
_COLOURS = {"forward": "tab:blue", "backward": "tab:orange", "weights": "tab:green"}
_MEANINGS = {
    "forward": "forward pass",
    "backward": "backward pass (zero bubble: of activations)",
    "weights": "backward pass of weights",
}
_SHOWN = {"stages": 4, "microbatches": 4}
UNIT = Costs(forward=1, backward=2)
"""A backward pass twice as long as the forward pass, and no time for communication."""


def pipeline_text(rows: Sequence[Row]) -> str:
    """Format the rows of `bench_pipeline` and the predictions for many stages as `pipeline.md`."""
    head = (
        "model",
        "stages",
        "micro-batches",
        "execution",
        "against",
        "ms",
        "ms, other",
        "ratio",
        "quartiles",
        "predicted",
        "ratio to one process",
    )
    body = [
        (
            f"{row['model']}, {row['size']}",
            str(row["stages"]),
            str(row["microbatches"]),
            _EXECUTIONS[row["execution"]],
            _BASELINES[row["baseline"]],
            f"{row['median_ms']:.1f}",
            f"{row['baseline_ms']:.1f}",
            f"{row['ratio']:.2f}",
            "–".join(f"{quartile:.2f}" for quartile in row["ratio_quartiles"]),
            "" if row["predicted"] is None else f"{row['predicted']:.2f}",
            f"{row['ratio_to_one_process']:.2f}",
        )
        for row in rows
    ]
    notes = [
        "A training step of DFA in stages, one process each, relative to backpropagation: under PyTorch's schedules in"
        " the same stages, and in one process on all cores. Medians over rounds in which all take turns; below 1, DFA"
        " is faster. Predicted: by the model of schedules, from the forward and backward times of one stage. The stages"
        " called sleeping wait instead of computing, so that four of them fit on two cores. In one process all cores"
        " are used; with `parallel`, as many parts as there are cores at a time, on one thread each.",
        "## Prediction, not measured",
        "Length of a step relative to backpropagation under 1F1B (GPipe's is the same), where a backward pass takes"
        " twice as long as a forward pass under either rule and communication takes no time.",
        _predicted_table(),
        conditions(rows, " a stage"),
    ]
    return markdown_page("Networks in stages", markdown_table(head, body, left=5), *notes)


def pipeline_figure(rows: Sequence[Row]) -> Figure:
    """Draw the timelines of all schedules, and the predicted ratio for many stages."""
    matplotlib.use("Agg")
    figure = Figure(figsize=(9, 8), layout="constrained")
    grid = figure.add_gridspec(3, 2)
    longest = max(_timeline(schedule).length for schedule in _TITLES)
    for place, schedule in enumerate(_TITLES):
        _draw_timeline(figure.add_subplot(grid[place // 2, place % 2]), schedule, longest)
    kinds = [Patch(color=_COLOURS[kind], label=meaning) for kind, meaning in _MEANINGS.items()]
    figure.legend(handles=kinds, loc="outside upper center", ncols=len(kinds), frameon=False, fontsize=8)
    _draw_predictions(figure.add_subplot(grid[2, 0]))
    _draw_measured(figure.add_subplot(grid[2, 1]), rows)
    return figure


def ratio(schedule: str, stages: int, microbatches: int) -> float:
    """Return the predicted length of a schedule's step relative to 1F1B's."""
    costs = [UNIT] * stages
    return predict(schedule, microbatches, costs).length / predict("1f1b", microbatches, costs).length


def _predicted() -> list[tuple[int, list[int]]]:
    """Numbers of stages, each with its numbers of micro-batches."""
    settings = load_settings("pipeline")["predicted"]
    return [
        (stages, [max(1, round(stages * share)) for share in settings["microbatches_per_stage"]])
        for stages in settings["stages"]
    ]


def _predicted_table() -> str:
    body = [
        (
            str(stages),
            str(count),
            f"{ratio('zero_bubble', stages, count):.2f}",
            f"{ratio('feedback', stages, count):.2f}",
        )
        for stages, counts in _predicted()
        for count in counts
    ]
    return markdown_table(("stages", "micro-batches", "BP, zero bubble", "DFA, feedback"), body)


def _timeline(schedule: str) -> Any:
    return predict(schedule, _SHOWN["microbatches"], [UNIT] * _SHOWN["stages"])


def _draw_timeline(axes: Axes, schedule: str, longest: float) -> None:
    timeline = _timeline(schedule)
    for each in timeline.intervals:
        length = each.end - each.start
        axes.barh(each.stage, length, left=each.start, color=_COLOURS[each.kind], edgecolor="white", height=0.9)
        axes.text((each.start + each.end) / 2, each.stage, each.microbatch + 1, ha="center", va="center", fontsize=6)
    idle = timeline.idle(_SHOWN["stages"])
    axes.set_title(f"{_TITLES[schedule]}: {timeline.length:.0f} units, {idle:.0%} idle", fontsize=9)
    axes.set(xlim=(0, longest), yticks=range(_SHOWN["stages"]), ylabel="stage")
    axes.set_xlabel("time, in forward passes of a stage", fontsize=8)
    axes.invert_yaxis()
    axes.tick_params(labelsize=7)


def _draw_predictions(axes: Axes) -> None:
    for stages, counts in _predicted():
        found = [ratio("feedback", stages, count) for count in counts]
        axes.plot([count / stages for count in counts], found, marker="o", label=f"{stages} stages")
    axes.set_title("prediction: feedback against 1F1B", fontsize=9)
    axes.set(xlabel="micro-batches per stage", ylabel="time of a step / 1F1B's", xscale="log", ylim=(0, 1))
    axes.set_xticks(load_settings("pipeline")["predicted"]["microbatches_per_stage"], minor=False)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.legend(fontsize=7)


def _draw_measured(axes: Axes, rows: Sequence[Row]) -> None:
    for model in dict.fromkeys(row["model"] for row in rows):
        mine = [row for row in rows if row["model"] == model and row["predicted"] is not None]
        axes.plot([row["predicted"] for row in mine], [row["ratio"] for row in mine], "o", label=model)
    axes.plot([0.3, 1], [0.3, 1], color="black", linestyle=":")
    axes.set_title("measured against PyTorch's schedules", fontsize=9)
    axes.set(xlabel="predicted ratio", ylabel="measured ratio")
    axes.legend(fontsize=7)
