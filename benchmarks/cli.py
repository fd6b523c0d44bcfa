"""The Hydra command line: one run, or a sweep with `-m`; errors in one line, exit codes that mean something.

Exit codes: 0 all runs are done; 1 a run failed or diverged; 2 the command cannot be carried out as given;
130 interrupted.
"""

import os
import sys
from collections.abc import Callable

import hydra
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from yaml import YAMLError

from benchmarks.config import CONFIG_DIR, register, resolve
from benchmarks.distributed import is_first, several_started
from benchmarks.errors import ConfigError, SuiteError
from benchmarks.execute import execute
from benchmarks.records import Record, RunFolder

USER_ERRORS = (SuiteError, HydraException, OmegaConfBaseException, YAMLError, OSError)
"""What a command reports in one line: its user can mend it."""

EXIT_DONE, EXIT_RUNS_FAILED, EXIT_UNUSABLE, EXIT_INTERRUPTED = 0, 1, 2, 130

_unsuccessful: list[str] = []
_unusable: list[str] = []


@hydra.main(config_path=str(CONFIG_DIR), config_name="config", version_base="1.3")
def _train(config: DictConfig) -> None:
    try:
        typed = resolve(config)
        record = execute(typed)
    except (SuiteError, OmegaConfBaseException) as error:  # kept for the end, so that a sweep goes on
        _unusable.append(one_line(error))
        return
    if is_first():
        print_outcome(record, RunFolder.of(typed))
    if record["status"] != "done":
        _unsuccessful.append(describe(record))


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


def describe(record: Record) -> str:
    """E.g. "cora gcn dfa seed 0: diverged: the training loss is nan at step 12"."""
    name = f"{record['task']} {record['model']} {record['rule']} seed {record['seed']}: {record['status']}"
    return name if record["status"] == "done" else f"{name}: {record['reason']}"


def one_line(error: BaseException) -> str:
    """The message of an error about names or options, in one line."""
    text = str(error).strip()
    if isinstance(error, HydraException) and "Available options in" in text:
        group = text.split("'")[1].split("/")[0]
        head, _, options = text.partition("Available options in")
        name = head.split("'")[-2].split("/")[-1]
        listed = options.partition("Config search path")[0].splitlines()[1:]
        known = ", ".join(line.strip() for line in listed if line.strip())
        group = head.split("'")[-2].rsplit("/", 1)[0] if "/" in head.split("'")[-2] else group
        return f"unknown {group} '{name}'; known: {known}"
    if isinstance(error, OverrideParseException):
        return f"cannot read '{error.override}': {str(error.message).strip().splitlines()[-1]}"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    useful = [line for line in lines if not line.startswith(("object_type", "reference_type", "See https", "full_key"))]
    keys = [line.split(":", 1)[1].strip() for line in lines if line.startswith("full_key")]
    message = " ".join(dict.fromkeys(useful))
    cause = error.__cause__
    if isinstance(error, HydraException) and cause is not None and str(cause).strip() not in text:
        message = f"{message}: {one_line(cause)}"
    return f"{message} (in {keys[0]})" if keys and keys[0] not in message else message


def report(line: str) -> None:
    """An error, told by the first of several processes."""
    if is_first():
        print(f"error: {line}", file=sys.stderr)


def guarded(command: Callable[[], int]) -> int:
    """Run a command; turn the user's errors into one line on stderr and an exit code."""
    try:
        return command()
    except USER_ERRORS as error:
        report(one_line(error))
        return EXIT_UNUSABLE
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        return EXIT_INTERRUPTED


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
            report(line)
        if _unusable:
            return EXIT_UNUSABLE
        return EXIT_RUNS_FAILED if _unsuccessful else EXIT_DONE

    sys.exit(guarded(command))
