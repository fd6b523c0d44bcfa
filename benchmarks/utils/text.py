"""Durations, means, Markdown and CSV for people to read."""

import csv
import io
import re
from collections.abc import Collection, Iterable, Sequence
from difflib import get_close_matches
from itertools import zip_longest

import numpy as np
from tabulate import tabulate


def markdown_table(heads: Sequence[str], rows: Iterable[Sequence[object]], left: int = 1) -> str:
    """Lay out a Markdown table, values as they are written.

    Args:
        heads: of the columns.
        rows: one value for each column.
        left: how many columns are aligned to the left, from the first on; the others are aligned to the right.
    """
    align = ["left" if place < left else "right" for place in range(len(heads))]
    return tabulate(list(rows), heads, tablefmt="pipe", disable_numparse=True, colalign=align)


def csv_text(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Lay out CSV: a line of heads, then one for each row, values as they are written."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(heads)
    writer.writerows(rows)
    return stream.getvalue()


def markdown_list(lines: Iterable[str]) -> str:
    """Lay out a Markdown list, each item in one line."""
    return "\n".join(f"- {' '.join(line.split())}" for line in lines)


def markdown_page(title: str, *parts: str) -> str:
    """Join a title and parts, such as paragraphs and tables, to a Markdown page; empty parts are left out."""
    return "\n\n".join(part for part in (f"# {title}", *parts) if part) + "\n"


def name_meant(word: str, known: Collection[str]) -> str:
    """Return the known name that a word stands for: itself, or the one that differs in case or "-" for "_" alone.

    A word that stands for none is returned as it is.
    """

    def folded(name: str) -> str:
        return name.replace("-", "_").lower()

    return word if word in known else next((name for name in known if folded(name) == folded(word)), word)


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or the error's kind where it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def code_title(commit: str, changed: bool) -> str:
    """Name the code that something was made with: its commit, and whether it differed from it."""
    return f"{commit} with uncommitted changes" if changed else commit


def fetch_or(task: str, else_do: str, in_a_run: bool = False) -> str:
    """Say how the missing data of a task are fetched, or what to do instead.

    Args:
        task: its name.
        else_do: what else there is to do.
        in_a_run: whether it is a run that lacks them, which could fetch them.
    """
    way = " (or set run.download=true), or" if in_a_run else " or"
    return f"run `python -m benchmarks fetch {task}`{way} {else_do}"


def unknown_name(kind: str, name: str, known: Collection[str]) -> str:
    """Say in one line that there is no such name, with the nearest first, then those that there are."""
    near, all_known = nearest_name(name, known), f"known: {', '.join(known) or 'none'}"
    return f"unknown {kind} '{name}'; " + (f"did you mean '{near}'? {all_known}" if near else all_known)


def nearest_name(name: str, known: Collection[str]) -> str:
    """Return the known name that is most like another; "" where none is near.

    Names with other numbers, as those of other tables, are not near.
    """
    numbers = re.findall(r"\d+", name)
    near = get_close_matches(name, [one for one in known if re.findall(r"\d+", one) == numbers], n=1)
    return near[0] if near else ""


def run_title(task: str, model: str, rule: str, seed: int) -> str:
    """Name a run in a few words, as in reports."""
    return f"{task} {model} {rule} seed {seed}"


def duration(seconds: float) -> str:
    """Format a duration in seconds, e.g. as "42 s", "3 min 5 s" or "2 h 7 min"."""
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole % 3600 // 60, whole % 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def printable(text: str) -> str:
    """Bring a text into one line without characters that steer a terminal or cannot be written."""
    return "".join(sign for sign in " ".join(text.split()) if sign.isprintable())


def first_difference(before: str, after: str, width: int = 90) -> tuple[str, str]:
    """Return the first line in which two texts differ, from shortly before the place; "" where one has none."""
    pairs = zip_longest(before.splitlines(), after.splitlines(), fillvalue="")
    pair = next((pair for pair in pairs if pair[0] != pair[1]), ("", ""))
    same = next((place for place, (a, b) in enumerate(zip(*pair, strict=False)) if a != b), min(map(len, pair)))
    start = max(0, same - width // 3)

    def shown(line: str) -> str:
        return "…" * bool(start and line) + line[start : start + width] + "…" * (len(line) > start + width)

    return shown(pair[0]), shown(pair[1])


def mean_and_spread(values: Sequence[float]) -> str:
    """Format the mean ± the sample standard deviation, e.g. "0.7982 ± 0.0190"; "–" if there are no values."""
    if not values:
        return "–"
    spread = f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
    return f"{np.mean(values):.4f}{spread}"
