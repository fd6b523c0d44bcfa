"""The suite's registries; rules have theirs in the library (`dfa.RULES`)."""

from collections.abc import Callable

from torch import nn

from benchmarks.task import Task
from dfa.registry import Registry

TASKS: Registry[Callable[..., Task]] = Registry("task")
MODELS: Registry[Callable[..., nn.Module]] = Registry("model")
