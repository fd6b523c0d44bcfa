"""Sweeps of the command line: composed runs are launched, outcomes printed, errors kept."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from rich.markup import escape

from benchmarks.config import Config, identity, resolve
from benchmarks.errors import ResultsError, SuiteError
from benchmarks.launchers import launch, make_launcher
from benchmarks.launchers.report import describe
from benchmarks.run.config_names import check_family
from benchmarks.run.record_schema import DAMAGED, Record
from benchmarks.run.records import RunFolder
from benchmarks.utils.exits import one_line, report_warning
from benchmarks.utils.metrics import CONSTANT
from benchmarks.utils.text import code_title
from benchmarks.utils.torchrun import is_first, several_started

_FILES_SHOWN = 2


@dataclass
class Sweep:
    """Runs that the command line asks for.

    Attributes:
        unusable: one line for each reason why runs, or the launcher, could not be begun.
        unsuccessful: one line for each run that failed or diverged.
    """

    unusable: list[str] = field(default_factory=list)
    unsuccessful: list[str] = field(default_factory=list)

    def carry_out(self, composed: Sequence[DictConfig]) -> list[float | None]:
        """Run what is composed and print the outcomes; errors are kept for the end, so that the sweep goes on.

        Nothing is run where a configuration or the launcher is invalid, which is seen before the first run.

        Returns:
            The best validation metric of each run, None where there is none.
        """
        configs = [config for config in map(self._resolved, composed) if config is not None]
        if len(configs) < len(composed):
            return [None] * len(composed)
        not_begun: set[str] = set()  # runs whose earlier record, if any, is not what was asked for
        try:
            # torchrun's processes all belong to one run, which each of them carries out itself.
            launcher = {"name": "serial"} if several_started() else configs[0].launcher
            make_launcher(launcher)
        except SuiteError as error:
            self.unusable.append(one_line(error))
            return [None] * len(composed)
        try:
            problems = launch(configs, launcher, shown=len(composed) > 1)
        except SuiteError as error:  # of the launcher itself
            self.unusable.append(one_line(error))
        else:
            self.unsuccessful.extend(str(problem) for problem in problems if problem.status)
            reasons = Counter(problem.reason for problem in problems if not problem.status)
            self.unusable.extend(
                f"{count} runs: {reason}" if count > 1 else reason for reason, count in reasons.items()
            )
            not_begun = {problem.run for problem in problems if not problem.status}
        records = [None if identity(config) in not_begun else RunFolder.of(config).read() for config in configs]
        for config, record in zip(configs, records, strict=True):
            if record is not None and record["status"] != DAMAGED and is_first():
                print_outcome(record, RunFolder.of(config))
                if fault := _lacking(RunFolder.of(config), record):
                    report_warning(f"{describe(record)}, but {fault}; remove its folder to have it run again")
        return [None if record is None else record["best_valid"] for record in records]

    def _resolved(self, config: DictConfig) -> Config | None:
        try:
            resolved = resolve(config)
            check_family(resolved)
            return resolved
        except (SuiteError, OmegaConfBaseException) as error:
            if (line := one_line(error)) not in self.unusable:  # once for all seeds
                self.unusable.append(line)
            return None


def _lacking(folder: RunFolder, record: Record) -> str:
    """Say what a finished run's folder lacks of what other commands read, "" where it is whole."""
    if record["status"] != "done":
        return ""
    if not (folder.path / "config.yaml").is_file():
        return "its configuration 'config.yaml' is missing"
    try:
        folder.complete_history(record)
    except ResultsError as error:
        return one_line(error)
    return ""


def print_outcome(record: Record, folder: RunFolder) -> None:
    """Print a run in a few lines: what it was, its metrics, and its folder."""
    console = Console(highlight=False)
    data = record["data"]
    console.print(f"[bold]{escape(describe(record))}[/] ({record['scale']} scale, {data['kind']} data)")
    metrics = {key: value for key, value in record["metrics"].items() if _is_shown(key)}
    for name, value in metrics.items():
        console.print(f"  {escape(name):18} {value:.4f}")
    if share := data["notes"].get("malformed_share"):
        console.print(f"  {share:.4%} of the data's rows are malformed and left out")
    console.print(f"  {record['epochs']} epochs in {record['seconds']:.1f} s on {escape(record['device'])}")
    console.print(f"  {escape(_provenance(record))}", soft_wrap=True)
    console.print(f"  {escape(str(folder.path))}", soft_wrap=True)


def _is_shown(metric: str) -> bool:
    return metric.count("/") == 1 and "norm" not in metric and not metric.endswith(CONSTANT)


def _provenance(record: Record) -> str:
    """Say when a run was recorded, by which code, and with which data."""
    when = f"recorded {record['finished']}" if "finished" in record else "recorded"
    code = f"commit {code_title(record['commit'], record['git_dirty'])}"
    sums = record.get("inputs", {}).get("data") or record["data"]["checksums"]
    files = ", ".join(f"{name} {checksum[:8]}" for name, checksum in list(sums.items())[:_FILES_SHOWN])
    more = f" and {len(sums) - _FILES_SHOWN} more" if len(sums) > _FILES_SHOWN else ""
    return f"{when}, {code}" + (f", data {files}{more}" if files else "")
