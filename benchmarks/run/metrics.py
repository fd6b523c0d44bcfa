"""What a task's evaluation gives, as numbers that a record can hold."""

from typing import Any

import numpy as np
from torch import Tensor

from benchmarks.errors import ConfigError
from benchmarks.task import Task


def checked_metrics(task: Task, metrics: Any) -> dict[str, float]:
    """Return metrics as plain numbers; arrays and tensors of a single one are converted.

    Raises:
        ConfigError: one is no number, or the task's metric is not among them.
    """
    where = f"task '{task.info.name}': evaluate must give"
    if not isinstance(metrics, dict):
        raise ConfigError(f"{where} a dictionary of numbers, and gives {type(metrics).__name__}")
    numbers = {}
    for name, value in metrics.items():
        plain = value.item() if isinstance(value, (Tensor, np.ndarray, np.generic)) and value.ndim == 0 else value
        if not isinstance(plain, (int, float)):
            raise ConfigError(f"{where} numbers, and '{name}' is a {type(value).__name__}{_shape(value)}")
        numbers[str(name)] = plain
    if task.metric not in numbers:
        raise ConfigError(f"{where} its metric '{task.metric}', and gives {', '.join(numbers) or 'nothing'}")
    return numbers


def _shape(value: Any) -> str:
    return f" of shape {tuple(value.shape)}" if isinstance(value, (Tensor, np.ndarray)) else ""
