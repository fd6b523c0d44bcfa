"""Status of tables and figures: how many of their runs are done, committed, running, …, and why others are not."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

from benchmarks.run.records import RunFolder
from benchmarks.tables.archive import Archive
from benchmarks.tables.plan import Plan, PlannedRun, distinct

STATES = ("done", "committed", "running", "interrupted", "failed", "diverged", "damaged", "missing")
_NAMED = 3  # runs that are named with a reason


@dataclass(frozen=True)
class RunState:
    """State of one run.

    Attributes:
        name: in a few words.
        state: one of `STATES`; committed: its record is in results/records, its folder is not here.
        reason: why it is not done.
    """

    name: str
    state: str
    reason: str


@dataclass(frozen=True)
class Group:
    """Runs of a table, of a figure, or all others."""

    name: str
    scale: str
    runs: Sequence[RunState]

    def row(self) -> list[str | int]:
        """Return name, scale, and how many runs are in each state."""
        return [self.name, self.scale, len(self.runs), *(self._count(state) for state in STATES)]

    def reasons(self) -> list[str]:
        """Format a line for each reason why runs are not done, with the first runs that it concerns."""
        groups: dict[tuple[str, str], list[str]] = {}
        for run in sorted(self.runs, key=lambda run: STATES.index(run.state)):
            if run.state not in ("done", "committed"):
                groups.setdefault((run.state, run.reason), []).append(run.name)
        return [
            f"{self.name}: {len(names)} {state}: {reason} ({', '.join(names[:_NAMED])}{', …' * (len(names) > _NAMED)})"
            for (state, reason), names in groups.items()
        ]

    def _count(self, state: str) -> int:
        return sum(run.state == state for run in self.runs)


def state_of(folder: RunFolder) -> tuple[str, str]:
    """Return the state of a run and why it is not done, from its folder alone."""
    if folder.is_held():
        return "running", "a process is at work on it"
    record = folder.read()
    if record is not None:
        return record["status"], record.get("reason", "")
    if folder.has_checkpoint:
        return "interrupted", "goes on from its checkpoint"
    return "missing", "not run yet"


def group_of(plan: Plan) -> Group:
    """Collect the states of the runs of a table or figure."""
    runs = []
    # Records do not hold the weights that some figures are drawn from: committed, these runs are missing all the same.
    without_weights = Archive.of(plan.target.name) if plan.target.weights else Archive("")
    for run in distinct(plan.runs):
        state, reason = _planned_state(run)
        if state == "missing" and without_weights.holds(run.config):
            reason = "its record is committed, but a figure needs its weights, so that it is trained again"
        runs.append(RunState(f"{run.cell.name} seed {run.config.seed}", state, reason))
    return Group(plan.target.name, plan.scale, runs)


def _planned_state(run: PlannedRun) -> tuple[str, str]:
    state, reason = state_of(RunFolder.of(run.config))
    if state == "missing" and run.record is not None:
        done = run.record["status"] == "done"
        return ("committed", "") if done else (run.record["status"], run.record.get("reason", ""))
    if state == "missing" and run.missing:
        return state, run.missing
    if state == "done" and run.to_do:
        return "missing", "recorded, but from other data, from other code, or without the weights that are needed"
    return state, reason


def others(results: Path, known: Iterable[RunFolder]) -> Group:
    """Collect the runs recorded or begun under `results` that belong to none of the known ones, e.g. by a sweep."""
    claimed = {folder.path.resolve() for folder in known}
    runs = []
    for path in sorted(results.glob("runs/*/*/*/seed*")):
        state, reason = state_of(RunFolder(path))
        if path.resolve() not in claimed and state != "missing":
            runs.append(RunState(" ".join(path.parts[-4:]), state, reason))
    return Group("other runs", "", runs)


def groups_of(plans: Iterable[Plan], with_others: bool) -> list[Group]:
    """Group the runs of plans, and with `with_others` those of the same results folder that belong to none of them."""
    made = list(plans)
    groups = [group_of(plan) for plan in made]
    if with_others and made:
        folders = [RunFolder.of(run.config) for plan in made for run in plan.runs]
        groups.append(others(Path(made[0].runs[0].config.run.results_dir), folders))
    return [group for group in groups if group.runs]


def show(groups: Sequence[Group]) -> str:
    """Format a line for each table or figure, then the reasons."""
    lines = tabulate([group.row() for group in groups], ["", "scale", "runs", *STATES])
    reasons = [reason for group in groups for reason in group.reasons()]
    return "\n".join([lines, "", *reasons]) if reasons else lines
