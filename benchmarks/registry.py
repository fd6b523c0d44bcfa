"""The suite's registries; rules have theirs in the library (`dfa.RULES`)."""

from collections.abc import Callable, Mapping

from matplotlib.figure import Figure
from torch import nn

from benchmarks.config import Config
from benchmarks.task import Task
from dfa.registry import Registry

TASKS: Registry[Callable[..., Task]] = Registry("task")
MODELS: Registry[Callable[..., nn.Module]] = Registry("model")


Draw = Callable[[Mapping[str, Config]], Figure]


FIGURES: Registry[Draw] = Registry("figure")
