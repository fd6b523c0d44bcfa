"""Registries of tasks, models, figures and data checks; that of rules is in the library (`dfa.RULES`)."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from torch import nn

from benchmarks.config import Config
from benchmarks.task import Task
from dfa.registry import Registry

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from benchmarks.utils.pictures import Illustrated

TASKS: Registry[Callable[..., Task]] = Registry("task")
MODELS: Registry[Callable[..., nn.Module]] = Registry("model")

DATA_FILES: Registry[Callable[[Path, Mapping[str, Any]], list[Path]]] = Registry("list of data files")
"""Task → the files that its real data are read from, given the data folder and the task's options; none if not there.

A run counts as another one once these files have changed.
"""

DATA_CHECKS: Registry[Callable[[Path], str]] = Registry("data check")
"""Task → why its real data are not in a data folder, "" where they are; nothing is read or fetched.

A task that is registered here has stand-in data, too, which take the place of the real ones at the scale `smoke` and
where those are missing. Nothing is known of the data of any other task: it runs as it is configured.
"""

Draw: TypeAlias = "Callable[[Mapping[str, Config]], Figure | Illustrated]"
"""A function that draws finished runs, panel → configuration; with pictures where pages can show them one by one."""
FIGURES: Registry[Draw] = Registry("figure")
