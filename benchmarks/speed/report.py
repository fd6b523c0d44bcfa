"""Markdown tables and plots of the speed measurements."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from benchmarks.errors import ResultsError
from benchmarks.utils.files import atomic_path, write_text

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
    return f"# One training step\n\n{_table(head, body)}\n\n" + "\n\n".join([*notes, _surroundings(rows)]) + "\n"


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
    return f"# Activation memory against depth\n\n{_table(head, body)}\n\n{note}\n\n{_surroundings(rows)}\n"


def overhead_text(rows: Sequence[Row]) -> str:
    """Format the rows of `bench_overhead` as `overhead.md`."""
    what = {
        "runner": "a step of the runner / a step of a bare loop",
        "alignment": "a measurement of alignment / a step of backpropagation",
    }
    body = [(what[row["what"]], _number(row["bare_ms"], 1), _number(row["ratio"], 3)) for row in rows]
    return f"# Overhead\n\n{_table(('what', 'ms of the latter', 'ratio'), body)}\n\n{_surroundings(rows)}\n"


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
    return f"# Time of a training step by operator\n\n{_table(head, body)}\n\n{note}\n\n{_surroundings(rows)}\n"


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


def _surroundings(rows: Sequence[Row]) -> str:
    facts = list(dict.fromkeys((row["hardware"], row["threads"], row["torch"], row["commit"]) for row in rows))
    return "  \n".join(
        f"{hardware}; {threads} thread(s); PyTorch {torch}; code {commit}."
        for hardware, threads, torch, commit in facts
    )


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _table(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
