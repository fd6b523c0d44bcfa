"""Plan of a table or figure: its runs, those already recorded, those whose data are missing, and the cost."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Protocol

from benchmarks.config import SCALES, Config, identity
from benchmarks.errors import ConfigError
from benchmarks.run.inputs import inputs_of
from benchmarks.run.record_schema import DAMAGED, Record
from benchmarks.run.records import RunBusy, RunFolder
from benchmarks.tables.archive import COMMITTED, Archive
from benchmarks.tables.cells import Cell
from benchmarks.tables.composed import composed_runs
from benchmarks.tables.missing_data import missing_data, settle_data
from benchmarks.tables.schema import matches
from benchmarks.utils.overrides import key_of
from benchmarks.utils.progress import with_bar
from benchmarks.utils.text import duration
from benchmarks.utils.values import check_known

AS_ASKED = "as asked"  # why a scale was chosen that the command names
AUTO_HOURS = 3.0
"""The automatic scale takes the paper's protocol where this device finishes it in so many hours."""


class Planned(Protocol):
    """Interface of tables and figures: cells, seeds per scale, and a cost hint."""

    @property
    def name(self) -> str: ...
    @property
    def heading(self) -> str: ...
    @property
    def cells(self) -> tuple[Cell, ...]: ...
    @property
    def stand_in(self) -> bool: ...
    @property
    def weights(self) -> bool: ...
    def seeds(self, cell: Cell, scale: str) -> int: ...
    def cost(self, cell: Cell, scale: str, stand_in: bool = False, device: str = "cpu") -> float: ...


@dataclass(frozen=True)
class PlannedRun:
    """Run of one seed of a cell.

    Attributes:
        record: what is on disk, or None.
        missing: why it cannot be run (its data is not here), or "".
        seconds: estimated cost, 0 if it does not have to be run.
    """

    cell: Cell
    config: Config
    record: Record | None
    missing: str
    seconds: float

    @property
    def to_do(self) -> bool:
        """Return whether it has to be run."""
        unsuccessful = self.record is not None and self.record["status"] != "done"
        return not self.missing and (self.record is None or (unsuccessful and self.config.run.retry))


@dataclass(frozen=True)
class Plan:
    """Runs of a table or figure at one scale.

    Attributes:
        why: that scale, in words.
        scale_of: where the scale was taken from instead.
        patterns: of rows and "row:column"; only cells that one of them matches are to be run. Empty: all are.
    """

    target: Planned
    scale: str
    why: str
    runs: tuple[PlannedRun, ...] = field(default_factory=tuple)
    archive: Archive = field(default_factory=lambda: Archive(""))
    scale_of: str = ""
    patterns: tuple[str, ...] = ()

    def restore(self) -> int:
        """Put committed runs that are not in the results folder there; return how many."""
        return self.archive.restore(run.config for run in self.runs)

    def set_aside_without_weights(self) -> None:
        """Make room for runs that are done, but without the weights that a figure is drawn from.

        One that another process is at work on is left to it.
        """
        for run in self.to_do if self.target.weights else ():
            folder = RunFolder.of(run.config)
            if not folder.result.exists():
                continue
            with suppress(RunBusy), folder.locked(wait=False):
                record = folder.read()
                if record is not None and record["status"] == "done" and not folder.weights("last").exists():
                    folder.set_aside(record)

    @property
    def to_do(self) -> list[PlannedRun]:
        """List what has to be run, the longest first, so that no worker is left with a long run at the end."""
        unique = {RunFolder.of(run.config).path: run for run in self.runs if run.to_do and self._asks_for(run.cell)}
        return sorted(unique.values(), key=lambda run: -run.seconds)

    def _asks_for(self, cell: Cell) -> bool:
        return not self.patterns or any(matches(pattern, cell.row, cell.name) for pattern in self.patterns)

    def with_cells(self, patterns: Sequence[str]) -> "Plan":
        """Return the plan with only the cells to be run that one of the patterns matches.

        Raises:
            ConfigError: one matches no cell.
        """
        for pattern in patterns:
            if not any(matches(pattern, cell.row, cell.name) for cell in self.target.cells):
                known = ", ".join(dict.fromkeys(cell.row for cell in self.target.cells))
                column = next((f", or cells such as {cell.name}" for cell in self.target.cells if cell.column), "")
                raise ConfigError(f"--cells: no cell matches '{pattern}'; rows: {known}{column}")
        return replace(self, patterns=tuple(patterns))

    def seconds(self, jobs: int) -> float:
        """Estimate the time in seconds with so many workers."""
        return sum(run.seconds for run in self.to_do) / max(1, jobs)

    def describe(self, jobs: int) -> str:
        """Describe the plan in words, cell by cell."""
        lines = [f"{self.target.heading}: scale {self.scale} ({self.scale_of or self.why})"]
        asked = [cell for cell in self.target.cells if self._asks_for(cell)]
        for cell in asked:
            runs = [run for run in self.runs if run.cell == cell]
            if not runs:
                continue
            done = sum(run.record is not None and run.record["status"] == "done" for run in runs)
            damaged = sum(run.record is not None and run.record["status"] == DAMAGED and not run.to_do for run in runs)
            unsuccessful = sum(run.record is not None and not run.to_do for run in runs) - done - damaged
            to_do, waiting = [run for run in runs if run.to_do], [run for run in runs if run.missing]
            data = "stand-in" if any(run.config.task.source == "stand_in" for run in runs) else "real"
            state = [
                f"{done} of {len(runs)} done",
                f"{unsuccessful} failed or diverged" if unsuccessful else "",
                f"{damaged} damaged" if damaged else "",
                f"{len(to_do)} to run ({_about(to_do)})" if to_do else "",
                f"{len(waiting)} wait for data ({_about(waiting)})" if waiting else "",
            ]
            lines.append(f"  {cell.name:28} {data:9} {', '.join(filter(None, state))}")
        total = f"{len(self.to_do)} runs to do, about {duration(self.seconds(jobs))}"
        total += f" with {jobs} worker{'s' * (jobs > 1)} on this device"
        if others := len(self.target.cells) - len(asked):
            lines.append(f"  {others} other cell{'s' * (others > 1)} left as {'they are' if others > 1 else 'it is'}")
        unique = distinct(run for run in self.runs if self._asks_for(run.cell))
        waiting = [run for run in unique if run.missing]
        if waiting:
            total += f"; {len(waiting)} wait for data, {_about(waiting)} of one worker"
        committed = sum(run.record is not None and COMMITTED in run.record for run in unique)
        if committed:
            total += f"; {committed} runs from committed records"
        reasons = dict.fromkeys(f"  missing: {run.missing}" for run in waiting)
        return "\n".join([*lines, *reasons, total])


def distinct(runs: Iterable[PlannedRun]) -> list[PlannedRun]:
    """List runs each once, however many cells take a number from them."""
    return list({identity(run.config): run for run in runs}.values())


def _about(runs: Sequence[PlannedRun]) -> str:
    return f"about {duration(sum(run.seconds for run in runs))}"


def make_plan(
    target: Planned,
    scale: str,
    seeds: int | None,
    settings: Sequence[str],
    jobs: int,
    archive: Archive | None = None,
) -> Plan:
    """Plan a table or figure.

    Args:
        target: what is to be made.
        scale: "paper", "mini", "smoke", or "auto": that of the committed records if they are complete, else the paper's
            protocol where data and time allow it, else mini. Where rules were added, the data of their cells count.
        seeds: seeds per cell; None: as the table says.
        settings: further overrides for every run, e.g. `run.device=cuda`.
        jobs: workers, for the estimate.
        archive: committed runs, which count as done; None: those in results/records, and none where weights are needed.

    Raises:
        ConfigError: an unknown scale, or a cell whose configuration does not exist.
    """
    check_known("scale", scale, ("auto", *SCALES))
    if seeds is not None and seeds < 1:
        raise ConfigError(f"seeds must be at least 1, got {seeds}")
    check_settings(target, settings)
    if archive is None:
        archive = Archive("") if target.weights else Archive.of(target.name)

    def plan_at(scale: str, why: str) -> Plan:
        return Plan(target, scale, why, _plan_runs(target, scale, seeds, settings, archive), archive)

    if scale != "auto":
        if not any(cell.runs_at(scale) for cell in target.cells):
            raise ConfigError(f"{target.heading} has no runs at scale {scale}")
        return plan_at(scale, AS_ASKED)
    committed = plan_at(str(archive.how["scale"]), str(archive.how["why"])) if archive.runs else None
    if committed is not None and not committed.to_do and not any(run.missing for run in committed.runs):
        return replace(committed, scale_of="that of the committed records")  # `why` is what their table says
    paper = committed if committed is not None and committed.scale == "paper" else plan_at("paper", "")
    # Committed records of the other cells are of no use to rules that were added where none of their own can be run.
    added = [run for run in paper.runs if run.cell.extra_rule]
    with_data = [run for run in added or paper.runs if not run.missing]
    hours = paper.seconds(jobs) / 3600
    if with_data and hours <= AUTO_HOURS:
        own = (run for run in with_data if run.record is None or COMMITTED not in run.record)
        names = ", ".join(dict.fromkeys(run.config.task.name for run in own))
        here = f"data for {names} is here and time allows" if names else "that of the committed records"
        return replace(paper, why=here)
    if not paper.runs:
        return plan_at("mini", "its only scale")
    where = paper.runs[0].config.run.data_dir
    why = f"scale paper would take {hours:.0f} h" if with_data else f"no data of the paper in '{where}'"
    return plan_at("mini", f"{why}; SCALE=paper insists")


def check_settings(target: Planned, settings: Sequence[str]) -> None:
    """Check that overrides for every run leave alone what makes a cell of a table or figure what it is.

    Raises:
        ConfigError: one sets a key that the table or figure sets itself.
    """
    own = {"scale", "seed"}
    for cell in target.cells:
        at_scales = (item for _, items in (*cell.only, *cell.at, *cell.chosen) for item in items)
        own |= {key_of(item) for item in (*cell.overrides, *cell.members, *at_scales)}
    for setting in settings:
        key = key_of(setting)
        if key in own or key.removesuffix(".name") in own & {"task", "model", "rule"}:
            raise ConfigError(f"{target.heading} sets '{key}' itself: '{setting}' would change what its cells mean")


def _plan_runs(
    target: Planned, scale: str, seeds: int | None, settings: Sequence[str], archive: Archive
) -> tuple[PlannedRun, ...]:
    wanted = [(cell, overrides) for cell in target.cells for overrides in cell.runs_at(scale)]
    common = (f"scale={scale}", f"run.wandb_group={target.name}", *settings)
    counts = (target.seeds(cell, scale) if seeds is None else seeds for cell, _ in wanted)
    asked = [((*overrides, *common), count) for (_, overrides), count in zip(wanted, counts, strict=True)]
    composed = composed_runs(asked, target.name)

    def planned(place: int) -> list[PlannedRun]:
        (cell, overrides), configs = wanted[place], composed[place]
        for seed, config in enumerate(configs):
            config.run.wandb_name = _copy_name(cell, overrides, seed)
        # Committed runs need no data.
        missing = "" if archive.holds(configs[0]) else missing_data(configs[0])
        return [
            _planned_run(target, cell, config, settle_data(config, missing, target.stand_in), scale, archive)
            for config in configs
        ]

    runs = with_bar(planned, range(len(wanted)), f"looking up the runs of {target.name}")
    return tuple(run for planned_runs in runs for run in planned_runs)


def _copy_name(cell: Cell, overrides: Sequence[str], seed: int) -> str:
    """Name a run in Weights & Biases by its cell, what tells apart the runs of a cell, and its seed."""
    member = [overrides[-1].split("=", 1)[-1]] if cell.members else []
    return " ".join([cell.name, *member, f"seed {seed}"])


def _planned_run(target: Planned, cell: Cell, config: Config, missing: str, scale: str, archive: Archive) -> PlannedRun:
    record = RunFolder.of(config).read() or archive.record_of(config)
    if record is not None and inputs_of(config, record).differs_from(record):
        record = None  # of other data or other code: to be run again
    done = record is not None and record["status"] == "done"
    if target.weights and done and not RunFolder.of(config).weights("last").exists():
        record = None
    if record is not None and record["status"] == "done":
        missing = ""
    cost = target.cost(cell, scale, config.task.source == "stand_in", config.run.device)
    run = PlannedRun(cell, config, record, missing, cost)
    return run if run.to_do or run.missing else replace(run, seconds=0.0)
