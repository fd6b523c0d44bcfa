"""Checkpoints: read back, the one before the last in place of a last one that is damaged; and the random state."""

import random
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.errors import ResultsError
from benchmarks.utils.machine import out_of_memory
from benchmarks.utils.text import first_line

State = dict[str, Any]


def newest_fitting(paths: Sequence[Path], take_up: Callable[[State], None]) -> tuple[Path, State] | None:
    """Return the first checkpoint that can be read and taken up, on the CPU; None where there is none.

    If that is not the first, a line says so.

    Args:
        paths: of those that there are, the newest first.
        take_up: has a run go on from what it is given; raises whatever it likes if that does not fit.

    Raises:
        ResultsError: there are some, and none fits.
    """
    faults = []
    for path in paths:
        try:
            state = _read(path)
        except Exception as error:
            _unless_out_of_memory(error)
            faults.append(f"unreadable checkpoint '{path}'")
            continue
        try:
            take_up(state)
        except Exception as error:
            _unless_out_of_memory(error)
            faults.append(f"checkpoint '{path}' does not fit its run ({type(error).__name__}: {first_line(error)})")
            continue
        if faults:
            print(f"warning: {faults[0]}; going on from the one before it", file=sys.stderr, flush=True)
        return path, state
    if faults:
        raise ResultsError(f"{' and '.join(faults)}; delete {'it' if len(faults) == 1 else 'them'} to start over")
    return None


def _read(path: Path) -> State:
    """Read a file; torch itself would not notice a number that was changed on disk."""
    if not path.is_file():
        raise ValueError("not a file")
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"{damaged} is damaged")
    state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, dict):
        raise ValueError("not a dictionary")
    return state


def _unless_out_of_memory(error: Exception) -> None:
    if out_of_memory(error):
        raise error


def random_state(device: torch.device) -> State:
    """Return the state of the generators that a run on a device may draw from: PyTorch's, NumPy's and Python's."""
    kind, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "numpy": (kind, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest),
        "python": random.getstate(),
    }


def set_random_state(device: torch.device, states: State) -> None:
    """Put back what `random_state` returned."""
    torch.set_rng_state(states["torch"])
    if device.type == "cuda" and states["cuda"] is not None:
        torch.cuda.set_rng_state(states["cuda"], device)
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    random.setstate(states["python"])
