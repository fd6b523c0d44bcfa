"""Markdown report of the measurements of click logs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.utils.text import code_title, markdown_page, markdown_table

Found = Mapping[str, Any]


def to_markdown(content: Mapping[str, Found]) -> str:
    """Format the content of `recommenders.json` (part → measurements), one section per part."""
    writers: dict[str, tuple[str, Callable[[Any], str]]] = {
        "preprocess": ("Preprocessing and reading a generated log", _logs),
        "memory": ("Preprocessing and reading a long generated log", _logs),
        "engines": ("Parsing and counting only, CPU seconds per million rows", _engines),
        "cells": ("Twenty steps at the paper's scale and field sizes, generated ids", _cells),
        "optimizers": ("One step of the embedding table (1,086,810 × 16) only", _optimizers),
    }
    parts = []
    for name, part in content.items():
        title, write = writers[name]
        code = code_title(part["commit"], part["git_dirty"])
        parts += [f"## {title}", write(part["found"]), f"{part['machine']}; commit {code}."]
    return markdown_page("Recommenders: measurements", *parts)


def _logs(found: Found) -> str:
    names = {"generate": "generate", "preprocess": "preprocess", "read": "read shuffled batches", "torchfm": "torchfm"}
    lines = [
        [
            label,
            f"{found[name]['rows']:,}",
            f"{found[name]['seconds']:.1f}",
            f"{found[name]['cpu_seconds']:.1f}",
            f"{found[name]['rows_per_second']:,.0f}",
            f"{found[name]['rows_per_cpu_second']:,.0f}",
            f"{found[name]['peak_memory_mb'] / 1000:.2f}",
        ]
        for name, label in names.items()
        if name in found
    ]
    heads = ["", "rows", "seconds", "CPU seconds", "rows / s", "rows / CPU s", "peak memory (GB)"]
    ours = found["preprocess"]
    facts = (
        f"Text {found['text_bytes'] / 1e9:.2f} GB, cache {ours['cache_bytes'] / 1e9:.2f} GB, "
        f"{ours['distinct_values']:,} distinct values, {sum(ours['field_sizes']):,} kept."
    )
    if "torchfm" in found:
        same = "the same" if found["same_field_sizes"] else "OTHER"
        facts += (
            f" Compared with torchfm, which finds {same} field sizes: {found['speedup']:.1f} × by wall clock, "
            f"{found['speedup_cpu']:.1f} × by CPU time."
        )
    return markdown_table(heads, lines) + f"\n\n{facts}"


def _engines(found: Sequence[Found]) -> str:
    return markdown_table(["", "CPU s"], [[row["engine"], f"{row['cpu_seconds_per_million']:.2f}"] for row in found])


def _cells(found: Sequence[Found]) -> str:
    heads = [
        "",
        "batch",
        "parameters",
        "s / step",
        "CPU s / step",
        "peak memory (GB)",
        "steps of a whole run",
        "hours, no early stop",
    ]
    lines = [
        [
            f"{cell['model']}/{cell['rule']}",
            cell["batch_size"],
            f"{cell['parameters']:,}",
            f"{cell['seconds_per_step']:.3f}",
            f"{cell['cpu_seconds_per_step']:.3f}",
            f"{cell['peak_memory_mb'] / 1000:.2f}",
            f"{cell['steps']:,}",
            f"{cell['hours']:.0f}",
        ]
        for cell in found
    ]
    return markdown_table(heads, lines)


def _optimizers(found: Sequence[Found]) -> str:
    return markdown_table(["", "ms"], [[row["optimizer"], f"{1000 * row['seconds_per_step']:.0f}"] for row in found])
