"""What all commands share: exit codes, errors in one line, requests to stop.

Exit codes: 0 all runs are done; 1 a run failed or diverged; 2 the command cannot be carried out as given;
130 interrupted by Ctrl-C; 143 asked to stop by SIGTERM, SIGUSR1 or SIGUSR2. After 130 and 143 the same command goes on
from the checkpoints.
"""

import signal
import sys
from collections.abc import Callable

from hydra.errors import HydraException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from benchmarks.errors import SuiteError
from benchmarks.utils.signals import Interrupted, heeding
from benchmarks.utils.torchrun import is_first

USER_ERRORS = (SuiteError, HydraException, OmegaConfBaseException, YAMLError, OSError)
"""What a command reports in one line: its user can mend it."""

EXIT_DONE, EXIT_RUNS_FAILED, EXIT_UNUSABLE, EXIT_INTERRUPTED, EXIT_TERMINATED = 0, 1, 2, 130, 143


def guarded(command: Callable[[], int]) -> int:
    """Run a command; turn the user's errors, and requests to stop, into one line on stderr and an exit code."""
    try:
        with heeding():
            return command()
    except USER_ERRORS as error:
        report_error(one_line(error))
        return EXIT_UNUSABLE
    except (KeyboardInterrupt, Interrupted) as request:
        if is_first():
            print("interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        by_user = not isinstance(request, Interrupted) or request.signal == signal.SIGINT
        return EXIT_INTERRUPTED if by_user else EXIT_TERMINATED


def report_error(line: str) -> None:
    """An error, told by the first of several processes."""
    if is_first():
        print(f"error: {line}", file=sys.stderr)


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
