"""Where errors arise in code that is neither the suite's nor a library's."""

import sysconfig
import traceback
from pathlib import Path

import benchmarks
import dfa

_OTHERS = [Path(folder).resolve() for folder in (*benchmarks.__path__, *dfa.__path__, sysconfig.get_path("stdlib"))]
"""Folders of the suite and of Python."""
_INSTALLED = {"site-packages", "dist-packages"}
_FRAMES = 40


def trace_of(error: BaseException) -> str:
    """Return the traceback of an error, with its innermost frames if there are many."""
    return "".join(traceback.format_exception(error, limit=-_FRAMES)).encode(errors="replace").decode()


def own_place(error: BaseException) -> str:
    """Return the innermost place of an error in a user's own code, as in " (spirals.py, line 12)"; "" without one."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = Path(frame.filename).resolve()
        if file.is_file() and _INSTALLED.isdisjoint(file.parts) and not any(map(file.is_relative_to, _OTHERS)):
            return f" ({file.name}, line {frame.lineno})"
    return ""
