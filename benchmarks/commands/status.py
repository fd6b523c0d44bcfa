"""What there is of each table and figure: runs done, running, interrupted, failed, diverged, missing, and why.

It only looks: nothing is started, and no data are needed.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

from benchmarks.commands.options import add_plan_options, overrides
from benchmarks.errors import ResultsError
from benchmarks.launchers import make_launcher, settings_among
from benchmarks.run.records import RunFolder
from benchmarks.tables.make import load_target, targets
from benchmarks.tables.plan import Plan, make_plan
from benchmarks.utils.exits import EXIT_DONE, EXIT_UNUSABLE, USER_ERRORS, guarded, one_line

STATES = ("done", "running", "interrupted", "failed", "diverged", "missing")
_NAMED = 3  # runs that are named with a reason


@dataclass(frozen=True)
class RunState:
    """One run.

    Attributes:
        name: in a few words.
        state: one of `STATES`.
        reason: why it is not done.
    """

    name: str
    state: str
    reason: str


@dataclass(frozen=True)
class Group:
    """The runs of a table, a figure, or all others."""

    name: str
    scale: str
    runs: Sequence[RunState]

    def row(self) -> list[str | int]:
        """Name, scale, and how many runs are in each state."""
        return [self.name, self.scale, len(self.runs), *(self._count(state) for state in STATES)]

    def reasons(self) -> list[str]:
        """A line for each reason why runs are not done, with the first that it concerns."""
        groups: dict[tuple[str, str], list[str]] = {}
        for run in sorted(self.runs, key=lambda run: STATES.index(run.state)):
            if run.state != "done":
                groups.setdefault((run.state, run.reason), []).append(run.name)
        return [
            f"{self.name}: {len(names)} {state}: {reason} ({', '.join(names[:_NAMED])}{', …' * (len(names) > _NAMED)})"
            for (state, reason), names in groups.items()
        ]

    def _count(self, state: str) -> int:
        return sum(run.state == state for run in self.runs)


def state_of(folder: RunFolder) -> tuple[str, str]:
    """State of a run and why it is not done, from its folder alone."""
    if folder.is_held():
        return "running", "a process is at work on it"
    try:
        record = folder.read()
    except ResultsError as error:
        return "failed", str(error)
    if record is not None:
        return record["status"], record.get("reason", "")
    if folder.has_checkpoint:
        return "interrupted", "goes on from its checkpoint"
    return "missing", "not run yet"


def group_of(plan: Plan) -> Group:
    """The runs of a table or figure."""
    runs = []
    for run in plan.runs:
        state, reason = state_of(RunFolder.of(run.config))
        if state == "missing" and run.missing:
            reason = run.missing
        runs.append(RunState(f"{run.cell.name} seed {run.config.seed}", state, reason))
    return Group(plan.target.name, plan.scale, runs)


def others(results: Path, known: Iterable[RunFolder]) -> Group:
    """What was recorded or begun under `results` and belongs to none of the known runs, e.g. by a sweep."""
    claimed = {folder.path.resolve() for folder in known}
    runs = []
    for path in sorted(results.glob("runs/*/*/*/seed*")):
        state, reason = state_of(RunFolder(path))
        if path.resolve() not in claimed and state != "missing":
            runs.append(RunState(" ".join(path.parts[-4:]), state, reason))
    return Group("other runs", "", runs)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `python -m benchmarks status`."""
    options = make_parser().parse_args(arguments)

    def command() -> int:
        settings = overrides(options)
        jobs = make_launcher(settings_among(settings)[0]).width("cpu")
        rules = [rule for rule in options.rules.split(",") if rule]
        groups: list[Group] = []
        plans: list[Plan] = []
        unusable: list[str] = []
        for name in targets(options.target or ["all"]):
            try:
                plans.append(make_plan(load_target(name, rules), options.scale, options.seeds, settings, jobs))
                groups.append(group_of(plans[-1]))
            except USER_ERRORS as error:
                unusable.append(f"error: {name}: {one_line(error)}")
        folders = [RunFolder.of(run.config) for plan in plans for run in plan.runs]
        if not options.target and plans:
            groups.append(others(Path(plans[0].runs[0].config.run.results_dir), folders))
        print(show([group for group in groups if group.runs]))
        for line in unusable:
            print(line, file=sys.stderr)
        return EXIT_UNUSABLE if unusable else EXIT_DONE

    sys.exit(guarded(command))


def make_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks status", description=__doc__)
    parser.add_argument("target", nargs="*", help="table_3, figure_2, ... (default: all, and the runs of no table)")
    add_plan_options(parser)
    return parser


def show(groups: Sequence[Group]) -> str:
    """A line for each table or figure, then the reasons."""
    lines = tabulate([group.row() for group in groups], ["", "scale", "runs", *STATES])
    reasons = [reason for group in groups for reason in group.reasons()]
    return "\n".join([lines, "", *reasons]) if reasons else lines
