"""Report of a search: its trials in Markdown and CSV, and the chosen values as a configuration."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from benchmarks.config import compose_config
from benchmarks.errors import ResultsError
from benchmarks.run.record_schema import Record, first_measured
from benchmarks.utils.files import read_regular, write_results
from benchmarks.utils.paths import config_folders
from benchmarks.utils.text import (
    code_title,
    csv_text,
    duration,
    markdown_list,
    markdown_page,
    markdown_table,
    mean_and_spread,
)
from benchmarks.utils.values import expanded_folder

CONFIGURED = 0
"""Number of the trial whose settings are those of the configuration files."""
Axis = Any
"""A distribution of Optuna's, which is there only where the extra `search` is installed."""


@dataclass(frozen=True)
class Tried:
    """Choice of settings with its runs.

    Attributes:
        number: from 1 in the order of the proposals; `CONFIGURED` for the configuration as it is.
        settings: key → value.
        records: of its runs, one a seed.
    """

    number: int
    settings: Mapping[str, Any]
    records: Sequence[Record]

    @property
    def values(self) -> list[float]:
        """Return the best validation metric of every seed that finished."""
        return [float(record["best_valid"]) for record in self.records if record["status"] == "done"]

    @property
    def mean(self) -> float:
        """Return the mean over the seeds that finished."""
        return float(np.mean(self.values))

    def complete(self, seeds: int) -> bool:
        """Return whether so many seeds finished."""
        return len(self.values) == seeds


@dataclass(frozen=True)
class Search:
    """Search that is over.

    Attributes:
        name: of its files.
        choice: overrides that all runs share, but for where and how they are carried out.
        axes: key → what was searched.
        sampling: how proposals were made, in words.
        seeds: runs of each trial.
        tried: all trials, the configured settings first.
    """

    name: str
    choice: Sequence[str]
    axes: Mapping[str, Axis]
    sampling: str
    seeds: int
    tried: Sequence[Tried]

    def ranked(self) -> list[Tried]:
        """Sort the trials, the best mean first; those of which a seed failed come last, since they cannot be chosen."""
        sign = -1 if self._measured["higher_is_better"] else 1
        return sorted(self.tried, key=lambda one: (sign * one.mean if one.complete(self.seeds) else np.inf, one.number))

    @property
    def chosen(self) -> Tried | None:
        """Return the best trial, or None where none finished."""
        first = self.ranked()[0]
        return first if first.complete(self.seeds) else None

    @property
    def metric(self) -> str:
        """Return the name of the validation metric."""
        return str(self._measured["valid_metric"])

    @property
    def _measured(self) -> Record:
        configured = self.tried[0].records
        return first_measured(configured) or configured[0]


def search_folder(choice: Sequence[str]) -> Path:
    """Return the folder for the reports of searches, below the results folder that overrides choose."""
    return Path(expanded_folder("run.results_dir", compose_config(choice).run.results_dir)) / "search"


def check_same_search(report: Path, held: Sequence[str], axes: Mapping[str, Axis], data: str = "") -> None:
    """Check that a report may be replaced: that it is of a search in the same space with the same settings held.

    Args:
        report: in Markdown, which need not be there.
        held: overrides that all runs share, in any order.
        axes: see `Search`.
        data: of the runs, as reports name them; "" if that is not known yet.

    Raises:
        ResultsError: it is of another search.
    """
    try:
        lines = read_regular(report).splitlines()
    except (OSError, ValueError):
        return
    before = {name: text for line in lines for name, _, text in [line.removeprefix("- ").partition(": ")]}
    if not {"Runs", "Searched"} <= before.keys():
        return
    was_held, _, was_on = before["Runs"].rpartition("; ")
    now = markdown_list([_axes(axes)]).removeprefix("- ")
    differing = {
        "another space": not before["Searched"].startswith(f"{now}. Optuna"),
        "other held settings": sorted(was_held.split()) != sorted(" ".join(held).split()),
        "other data": bool(data) and was_on != f"{data}.",
    }
    if what := [name for name, differs in differing.items() if differs]:
        raise ResultsError(f"the report '{report}' is of {' and '.join(what)}, and is kept (see --force and --name)")


def write_search(search: Search, folder: Path, force: bool = False) -> list[Path]:
    """Write `<name>.md` and `<name>.csv`, and the chosen values to `chosen/<name>.yaml`.

    Args:
        search: that is over.
        folder: of reports.
        force: replace the report of another search as well.

    Raises:
        ResultsError: the folder cannot be written to, or has another search's report of this name.
    """
    if not force:
        check_same_search(folder / f"{search.name}.md", search.choice, search.axes, _data(search))
    texts = {f"{search.name}.md": to_markdown(search), f"{search.name}.csv": to_csv(search)}
    if search.chosen is not None:
        texts[f"chosen/{search.name}.yaml"] = to_config(search, search.chosen, folder)
    return write_results({folder / name: text for name, text in texts.items()})


def to_markdown(search: Search) -> str:
    """Format a heading, all trials from the best to the worst, and how they came about."""
    heads = ["trial", *search.axes, f"valid {search.metric}", "seeds", "failed"]
    body = [
        [
            "configured" if one.number == CONFIGURED else one.number,
            *map(_shown, one.settings.values()),
            mean_and_spread(one.values),
            len(one.values),
            len(one.records) - len(one.values),
        ]
        for one in search.ranked()
    ]
    table = markdown_table(heads, body, left=0)
    return markdown_page(f"Search: {search.name}", table, markdown_list(_footer(search)))


def to_csv(search: Search) -> str:
    """Format the trials as CSV: one line per trial in the order of the proposals, full precision."""
    heads = ["trial", *search.axes, f"valid/{search.metric}", "std", "n", "failed"]
    rows: list[list[Any]] = []
    for one in search.tried:
        mean = f"{one.mean:.10g}" if one.values else ""
        spread = f"{np.std(one.values, ddof=1):.10g}" if len(one.values) > 1 else ""
        finished = len(one.values)
        failed = len(one.records) - finished
        rows.append([one.number, *map(_shown, one.settings.values()), mean, spread, finished, failed])
    return csv_text(heads, rows)


def to_config(search: Search, chosen: Tried, folder: Path) -> str:
    """Format the chosen values as a configuration that a run can add from `folder`."""
    tree = OmegaConf.create()
    for key, value in chosen.settings.items():
        OmegaConf.update(tree, key, value)
    which = "the values as configured" if chosen.number == CONFIGURED else f"trial {chosen.number}"
    folders = [word for place in (*config_folders()[1:], folder) for word in ("--config-dir", str(place))]
    command = shlex.join(["python", "-m", "benchmarks", "train", *folders, f"+chosen={search.name}", *search.choice])
    header = [
        "# @package _global_",
        f"# Best on validation of {len(search.tried)} settings tried, {which} ({search.name}.md):",
        f"#   {command}",
    ]
    return "\n".join(header) + "\n" + OmegaConf.to_yaml(tree)


def _shown(value: Any) -> Any:
    return "null" if value is None else value


def _footer(search: Search) -> list[str]:
    records = [record for one in search.tried for record in one.records]
    commits = dict.fromkeys(code_title(record["commit"], record["git_dirty"]) for record in records)
    chosen = search.chosen
    which = "nothing, since no trial finished"
    if chosen is not None:
        which = "the configured values" if chosen.number == CONFIGURED else f"trial {chosen.number}"
    return [
        f"Chosen: {which}, on validation alone; test scores are neither used nor shown.",
        "± is the sample standard deviation over seeds."
        if search.seeds > 1
        else "One seed a trial: no spread is given.",
        f"Runs: {' '.join(search.choice)}; {_data(search)}.",
        f"Searched: {_axes(search.axes)}. {search.sampling}.",
        f"Cost: {duration(sum(float(record['seconds']) for record in records))} for {len(records)} runs.",
        f"Hardware: {', '.join(dict.fromkeys(record['device'] for record in records))}. Commit: {', '.join(commits)}.",
    ]


def _data(search: Search) -> str:
    records = [record for one in search.tried for record in one.records]
    return ", ".join(dict.fromkeys(f"{record['data']['name']} ({record['data']['kind']})" for record in records))


def _axes(axes: Mapping[str, Axis]) -> str:
    return ", ".join(f"{key} {_described(axis)}" for key, axis in axes.items())


def _described(axis: Axis) -> str:
    if hasattr(axis, "choices"):
        return f"one of {', '.join(str(_shown(choice)) for choice in axis.choices)}"
    stepped = axis.step is not None and axis.step != 1
    how = ", logarithmic" if axis.log else f" in steps of {axis.step}" if stepped else ""
    return f"from {axis.low} to {axis.high}{how}"
