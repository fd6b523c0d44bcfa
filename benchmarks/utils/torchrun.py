"""What torchrun says of this process in its environment."""

import os

from torch import distributed


def several_started() -> bool:
    """Whether torchrun has started this process and others."""
    return distributed.is_available() and distributed.is_torchelastic_launched() and variable("WORLD_SIZE") > 1


def is_first() -> bool:
    """Whether this process speaks for its run."""
    return not several_started() or variable("RANK") == 0


def variable(name: str) -> int:
    """A number among torchrun's environment variables; 0 if it is not set."""
    return int(os.environ.get(name, 0))
