"""Environment variables that torchrun sets in each process of a distributed run."""

import os

from torch import distributed


def several_started() -> bool:
    """Return whether torchrun started this process as one of several."""
    return distributed.is_available() and distributed.is_torchelastic_launched() and variable("WORLD_SIZE") > 1


def is_first() -> bool:
    """Return whether this is the process of rank 0, or the only one."""
    return not several_started() or variable("RANK") == 0


def variable(name: str) -> int:
    """Return an integer environment variable such as RANK or WORLD_SIZE; 0 if it is not set."""
    return int(os.environ.get(name, 0))
