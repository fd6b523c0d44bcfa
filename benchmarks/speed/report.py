"""Markdown tables and plots of the speed measurements."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from benchmarks.errors import ResultsError
from benchmarks.utils.files import atomic_path, write_result, write_text
from benchmarks.utils.text import markdown_page, markdown_table

Row = dict[str, Any]
_METHODS = {
    "bp": "backpropagation",
    "dfa": "DFA",
    "bp_checkpoint": "backpropagation, a checkpoint per block",
    "dfa_recompute": "DFA, memory=recompute",
}


def write_report(folder: Path, name: str, rows: Sequence[Row], text: str, figure: Figure | None = None) -> list[Path]:
    """Write `<name>.json`, `<name>.md` and, with a figure, `<name>.png`.

    Raises:
        ResultsError: the folder cannot be written.
    """
    written = [folder / f"{name}.json", folder / f"{name}.md"]
    try:
        write_text(written[0], json.dumps(rows, indent=1) + "\n")
        write_text(written[1], text)
        if figure is not None:
            written.append(folder / f"{name}.png")
            with atomic_path(written[-1]) as temporary:
                figure.savefig(temporary, format="png", dpi=150, bbox_inches="tight", metadata={"Software": None})
    except OSError as error:
        raise ResultsError(f"cannot write the measurements to {folder}: {error.strerror or error}") from None
    return written


def print_json(found: Mapping[str, Any], target: Path | None) -> None:
    """Print measurements as JSON, and write them to `target` if there is one.

    Raises:
        ResultsError: the file cannot be written.
    """
    text = json.dumps(found, indent=1) + "\n"
    if target is not None:
        write_result(target, text)
    print(text, end="")


def steps_text(rows: Sequence[Row]) -> str:
    """Format the rows of `bench_steps` as `steps.md`."""
    head = ("model", "size", "rule", "mode", "ms", "ratio to bp", "quartiles", "CPU time", "FLOPs", "peak MB")
    body = [
        (
            row["model"],
            row["size"],
            row["rule"],
            row["mode"],
            *(
                (row["failure"], *[""] * 5)
                if "failure" in row
                else (
                    _number(row["median_ms"], 1),
                    _number(row["ratio_to_bp"], 3),
                    "–".join(_number(quartile, 2) for quartile in row.get("ratio_quartiles", ())),
                    _number(row["cpu_ratio_to_bp"], 3),
                    _number(row["flop_ratio"], 3),
                    _number(row["peak_mb"], 1),
                )
            ),
        )
        for row in rows
    ]
    notes = [
        "One training step: forward, backward, clipping, optimiser. Each candidate runs in its own process and all take"
        " turns; a ratio compares consecutive turns; all numbers are medians over rounds.",
        "CPU time: the same ratio by processor time. FLOPs: of matrix products, the ratio that the arithmetic allows"
        " (blank where code is compiled; sparse products are not counted). Peak: memory allocated during a step beyond"
        " weights, optimiser and data.",
    ]
    return markdown_page("One training step", markdown_table(head, body, left=4), *notes, conditions(rows))


def depth_text(rows: Sequence[Row]) -> str:
    """Format the rows of `bench_depth` as `memory.md`."""
    head = ("network", "blocks", "method", "peak MB", "ms", "time / bp", "CPU time / bp")
    body = [
        (
            row["title"],
            str(row["blocks"]),
            _METHODS[row["method"]],
            _number(row["peak_mb"], 1),
            _number(row["median_ms"], 1),
            _number(row["ratio_to_bp"], 2),
            _number(row["cpu_ratio_to_bp"], 2),
        )
        for row in rows
    ]
    note = "Peak memory of forward and backward beyond weights, their gradients and data."
    table = markdown_table(head, body, left=3)
    return markdown_page("Activation memory against depth", table, note, conditions(rows))


def overhead_text(rows: Sequence[Row]) -> str:
    """Format the rows of `bench_overhead` as `overhead.md`."""
    what = {
        "runner": "a step of the runner / a step of a bare loop",
        "alignment": "a measurement of alignment / a step of backpropagation",
    }
    body = [(what[row["what"]], _number(row["bare_ms"], 1), _number(row["ratio"], 3)) for row in rows]
    return markdown_page("Overhead", markdown_table(("what", "ms of the latter", "ratio"), body), conditions(rows))


def profile_text(rows: Sequence[Row]) -> str:
    """Format the rows of `bench_profile` as `profile.md`."""
    head = ("model", "operator", "ms, bp", "ms, dfa", "calls, bp", "calls, dfa")
    body = [
        (
            row["model"],
            f"`{row['operator']}`" if row["operator"] not in ("others", "all") else row["operator"],
            *(_number(row[f"{rule}_ms"], 2) for rule in ("bp", "dfa")),
            *(_number(row[f"{rule}_calls"], 0) for rule in ("bp", "dfa")),
        )
        for row in rows
    ]
    note = "Self time of each operator in one training step, on the calling thread, by PyTorch's profiler."
    table = markdown_table(head, body, left=2)
    return markdown_page("Time of a training step by operator", table, note, conditions(rows))


def latency_text(rows: Sequence[Row]) -> str:
    """Format the rows of `bench_latency` as `latency.md`."""
    names, keys = ("median", "fastest", "CPU time"), ("median_seconds", "fastest_seconds", "cpu_seconds")
    before = bool(rows) and "before_median_seconds" in rows[0]
    head = ("command", "goal", "empty cache", *names, *(f"before: {name}" for name in names if before))
    body = [
        (
            f"`{row['command']}`" + ", to the first step" * row["first_step"],
            f"< {row['goal_seconds']:g}",
            _number(row["first_seconds"], 2),
            *(_number(row[f"{part}{key}"], 2) for part in ("", "before_")[: 1 + before] for key in keys),
        )
        for row in rows
    ]
    note = (
        f"Seconds from the start of the process, in {rows[0]['rounds']} rounds after one with an empty cache folder."
        " The goals are for two cores that do nothing else; here the load, these commands included, was"
        f" {min(row['load'] for row in rows):.1f} to {max(row['load'] for row in rows):.1f}. Training takes place on"
        " stand-in data at the scale smoke."
    )
    if before:
        note += " before: the same commands of other code, the checkout that --before named; which one is not recorded."
    return markdown_page("How soon commands answer", markdown_table(head, body), note, conditions(rows))


def steps_figure(rows: Sequence[Row]) -> Figure:
    """Draw time ratios to backpropagation as bars, with a line at the ratio of FLOPs."""
    matplotlib.use("Agg")
    shown = [row for row in rows if row.get("ratio_to_bp") is not None and row["rule"] != "bp"]
    figure = Figure(figsize=(7, 1 + 0.28 * len(shown)))
    axes = figure.subplots()
    colours = {"dfa": "tab:blue", "shallow": "tab:gray"}
    for place, row in enumerate(reversed(shown)):
        axes.barh(place, row["ratio_to_bp"], color=colours.get(row["rule"], "tab:green"), height=0.7)
        if row["flop_ratio"]:
            axes.plot([row["flop_ratio"]] * 2, [place - 0.35, place + 0.35], color="black")
    labels = [
        f"{row['model']}, {row['rule']}" + f" ({row['mode']})" * (row["mode"] != "eager") for row in reversed(shown)
    ]
    axes.set_yticks(range(len(shown)), labels, fontsize=8)
    axes.axvline(1, color="black", linestyle=":")
    axes.set_xlabel("time of a training step, relative to backpropagation (line: ratio of FLOPs)")
    return figure


def depth_figure(rows: Sequence[Row]) -> Figure:
    """Draw peak memory against the number of blocks, one panel per network."""
    matplotlib.use("Agg")
    titles = list(dict.fromkeys(row["title"] for row in rows))
    figure = Figure(figsize=(4.2 * len(titles), 3.4), layout="constrained")
    for axes, title in zip(figure.subplots(1, len(titles), squeeze=False)[0], titles, strict=True):
        for method, label in _METHODS.items():
            mine = [row for row in rows if row["title"] == title and row["method"] == method]
            line = "--" if method == "bp_checkpoint" else "-"  # its curve may coincide with another
            axes.plot([row["blocks"] for row in mine], [row["peak_mb"] for row in mine], line, marker="o", label=label)
        axes.set(title=title, xlabel="blocks", ylabel="peak activation memory, MB", xscale="log", yscale="log")
        axes.set_xticks(sorted({row["blocks"] for row in rows}), minor=False)
        axes.xaxis.set_major_formatter("{x:.0f}")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:.0f}")
        axes.minorticks_off()
    figure.axes[0].legend(fontsize=7)
    return figure


def conditions(rows: Sequence[Row], threads_of: str = "") -> str:
    """Format on what rows were measured, a line for each combination; `threads_of` says of what the threads are."""
    facts = list(dict.fromkeys((row["hardware"], row["threads"], row["torch"], row["commit"]) for row in rows))
    return "  \n".join(
        f"{hardware}; {threads} thread(s){threads_of}; PyTorch {torch}; code {commit}."
        for hardware, threads, torch, commit in facts
    )


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
