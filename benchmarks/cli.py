"""The Hydra command line: one run, or a sweep with `-m`, carried out by the launcher of the configuration.

Errors are told in one line. Exit codes: 0 all runs are done; 1 a run failed or diverged, or was ended from outside;
2 the command cannot be carried out as given; 130 interrupted by Ctrl-C; 143 asked to stop by SIGTERM, SIGUSR1 or
SIGUSR2.
"""

import os
import sys
from collections.abc import Sequence

import hydra
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from benchmarks.commands import EXIT_DONE, EXIT_RUNS_FAILED, EXIT_UNUSABLE, guarded, one_line, report_error
from benchmarks.config import CONFIG_DIR, Config, register, resolve
from benchmarks.distributed import is_first, several_started
from benchmarks.errors import ConfigError, ResultsError, SuiteError
from benchmarks.launchers import launch
from benchmarks.launchers.report import describe
from benchmarks.records import Record, RunFolder

_unsuccessful: list[str] = []
_unusable: list[str] = []


@hydra.main(config_path=str(CONFIG_DIR), config_name="config", version_base="1.3")
def _train(config: DictConfig) -> None:
    carry_out([config])


def carry_out(composed: Sequence[DictConfig]) -> list[float | None]:
    """Run what is composed and print what came out; what went wrong is kept for the end, so that a sweep goes on.

    Returns:
        The best value on validation of each run, None where there is none.
    """
    configs: list[Config | None] = [_resolved(config) for config in composed]
    runs = [config for config in configs if config is not None]
    try:
        # The processes of torchrun are those of one run, which none of them hands on.
        launcher = {"name": "serial"} if several_started() else runs[0].launcher if runs else {}
        problems = launch(runs, launcher, shown=len(composed) > 1) if runs else []
    except SuiteError as error:  # of the launcher itself
        _unusable.append(one_line(error))
    else:
        _unsuccessful.extend(str(problem) for problem in problems if problem.status)
        _unusable.extend(str(problem) for problem in problems if not problem.status)
    records = [None if config is None else _record(config) for config in configs]
    for config, record in zip(configs, records, strict=True):
        if config is not None and record is not None and is_first():
            print_outcome(record, RunFolder.of(config))
    return [None if record is None else record["best_valid"] for record in records]


def _resolved(config: DictConfig) -> Config | None:
    try:
        return resolve(config)
    except (SuiteError, OmegaConfBaseException) as error:
        _unusable.append(one_line(error))
        return None


def _record(config: Config) -> Record | None:
    try:
        return RunFolder.of(config).read()
    except ResultsError:  # has been told, and must not hide the others
        return None


def print_outcome(record: Record, folder: RunFolder) -> None:
    """One run in a few lines: what it was, what came out, where it lies."""
    console = Console(highlight=False)
    data = record["data"]
    console.print(f"[bold]{describe(record)}[/] ({record['scale']} scale, {data['kind']} data)")
    metrics = {key: value for key, value in record["metrics"].items() if key.count("/") == 1 and "norm" not in key}
    for name, value in metrics.items():
        console.print(f"  {name:18} {value:.4f}")
    console.print(f"  {record['epochs']} epochs in {record['seconds']:.1f} s on {record['device']}")
    console.print(f"  {folder.path}", soft_wrap=True)


def main() -> None:
    """Entry point of `scripts/train.py` and `dfa-bench`."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # lets errors through to us instead of Hydra's own report
    register()

    def command() -> int:
        _unsuccessful.clear()
        _unusable.clear()
        if several_started() and {"-m", "--multirun"} & set(sys.argv[1:]):
            raise ConfigError("torchrun carries out one run at a time; leave out -m")
        _train()
        for line in (*_unusable, *_unsuccessful):
            report_error(line)
        if _unusable:
            return EXIT_UNUSABLE
        return EXIT_RUNS_FAILED if _unsuccessful else EXIT_DONE

    sys.exit(guarded(command))
