"""How a case of the campaign is carried out: a command is called with something hostile, and must end as it should."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import Command

Row = tuple[str, str]
"""Words of the command line, and a pattern of the line that must be told."""
Tree = dict[str, tuple[int, int]]


@dataclass(frozen=True)
class Outcome:
    """What a command left behind: exit code, what it printed, and which files it changed."""

    code: int
    out: str
    err: str
    changed: list[str]


def tree(*folders: Path) -> Tree:
    """Size and time of each file, to see what a command writes; locks do not count."""
    files = (path for folder in folders for path in folder.rglob("*") if not path.is_dir() and path.name != ".lock")
    return {str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in files}


def carried_out(command: Command, main: Callable[[], None], words: Iterable[str], *folders: Path) -> Outcome:
    """Call a command, and say what it changed in these folders."""
    before = tree(*folders)
    code, out, err = command(main, *words)
    after = tree(*folders)
    changed = sorted({*before.items()} ^ {*after.items()})
    return Outcome(code, out, err, sorted({name for name, _ in changed}))


def assert_refused(outcome: Outcome, message: str) -> None:
    """One line that says why, exit code 2, and nothing written."""
    assert outcome.code == 2, (outcome.code, outcome.err)
    assert re.fullmatch(r"error: [^\n]+\n", outcome.err), outcome.err
    assert re.search(message, outcome.err), outcome.err
    assert len(outcome.err) < 1000 and "Traceback" not in outcome.err + outcome.out
    assert outcome.changed == []
