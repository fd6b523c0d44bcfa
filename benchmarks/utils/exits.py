"""Exit codes, one-line error messages and signal handling of all commands.

Exit codes: 0 all runs are done; 1 a run failed or diverged, or its record is damaged; 2 the command cannot be carried
out as given; 130 interrupted by Ctrl-C; 143 stopped by SIGTERM, SIGUSR1 or SIGUSR2. After 130 and 143 a command that
trains resumes from the checkpoints.
"""

import re
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import is_dataclass

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException
from yaml import YAMLError

from benchmarks.errors import SuiteError
from benchmarks.utils.paths import check_config_folders
from benchmarks.utils.schema_keys import unknown_key, unknown_option
from benchmarks.utils.signals import Interrupted, handle_signals
from benchmarks.utils.text import nearest_name, unknown_name
from benchmarks.utils.torchrun import is_first

USER_ERRORS = (SuiteError, HydraException, OmegaConfBaseException, YAMLError, OSError)
"""Errors that the user can fix; a command reports them in one line, without a traceback."""

EXIT_DONE, EXIT_RUNS_FAILED, EXIT_UNUSABLE, EXIT_INTERRUPTED, EXIT_TERMINATED = 0, 1, 2, 130, 143

_SAY_NOTHING = ("See http", "Error parsing override", "LexerNoViableAltException", "Available:")
"""Beginnings of the lines with which Hydra says where in an override it stopped, and not why."""

_SEVERAL = re.compile(r"Ambiguous value for argument '(.+?)'\n")
_LIST_WANTED = re.compile(r"Error merging override ([\w.]+)=(.*): Invalid value assigned: \w+ is not a ListConfig")

_IN_QUOTES = "a value with signs such as ' ~ ( must be put in quotes, as in \"key='value'\""


def guarded(command: Callable[[], int], resumes: bool = False) -> int:
    """Run a command; turn `USER_ERRORS` and signals into one line on stderr.

    Args:
        command: to run.
        resumes: whether it trains runs that are kept, so that there are checkpoints to go on from.

    Returns:
        The command's own exit code, or one of those in the module's docstring.
    """
    try:
        with handle_signals():
            check_config_folders()
            return command()
    except USER_ERRORS as error:
        report_error(one_line(error))
        return EXIT_UNUSABLE
    except (KeyboardInterrupt, Interrupted) as request:
        if is_first():
            what_next = "; the same command resumes from the last checkpoint" if resumes else ""
            print(f"interrupted{what_next}", file=sys.stderr)
        by_user = not isinstance(request, Interrupted) or request.signal == signal.SIGINT
        return EXIT_INTERRUPTED if by_user else EXIT_TERMINATED


def report_error(line: str) -> None:
    """Print an error to stderr, once for all processes of a distributed run."""
    if is_first():
        print(f"error: {line}", file=sys.stderr)


def report_warning(line: str) -> None:
    """Print a warning to stderr, once for all processes of a distributed run."""
    if is_first():
        print(f"warning: {line}", file=sys.stderr)


def one_line(error: BaseException) -> str:
    """Return the message of a configuration error in one line, without paths and type names of Hydra and OmegaConf."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, name = error.missing_cfg_file.rpartition("/")
        return _unknown_file(group, name, error.options)
    if isinstance(error, OverrideParseException):
        said = [line.strip() for line in str(error.message).splitlines()]
        telling = [line for line in said if line.strip("^") and not line.startswith(_SAY_NOTHING)]
        return f"cannot read '{error.override}': {telling[-1] if telling else _IN_QUOTES}"
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"'{error.filename}' cannot be used: {error.strerror}"
    cause = error.__cause__
    if isinstance(cause, (ConfigKeyError, ConfigAttributeError)) and isinstance(cause.parent_node, DictConfig):
        if is_dataclass(cause.object_type):
            return unknown_key(str(cause.full_key), OmegaConf.get_type(cause.parent_node._get_root()))
        return unknown_option(str(cause.full_key), map(str, cause.parent_node))
    text = str(error).strip()
    if several := _SEVERAL.match(text):
        return f"'{several[1]}' holds several values: put -m before it to train each, or write a list as key=[a,b]"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    useful = [line for line in lines if not line.startswith(("object_type", "reference_type", "See https", "full_key"))]
    keys = [line.split(":", 1)[1].strip() for line in lines if line.startswith("full_key")]
    message = " ".join(dict.fromkeys(useful)).removeprefix("ConfigError raised while resolving interpolation: ")
    if isinstance(error, HydraException) and cause is not None and str(cause).strip() not in text:
        message = f"{message}: {one_line(cause)}"
    if listed := _LIST_WANTED.match(message):
        return f"{listed[1]} takes a list: {listed[1]}=[{listed[2]}]"
    return f"{message} (in {keys[0]})" if keys and keys[0] not in message else message


def _unknown_file(group: str, name: str, known: Sequence[str]) -> str:
    """Say that a group has no file of a name, and where one of the user's own would be."""
    own = f"one of your own is a file {group}/{name}.yaml in a folder that --config-dir gives"
    said = unknown_name(group, name, known)
    return said if nearest_name(name, known) else f"{said}; {own}"
