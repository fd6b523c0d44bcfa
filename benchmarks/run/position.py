"""Where a run is; together with the seed it determines all that follows."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass
class Position:
    """Position of a run.

    Attributes:
        epoch: the epoch under way, from 1.
        batch: batches of it that are done.
        step: optimiser steps done in all.
        evaluations: evaluations done, which is also the number of lines in the history.
        seconds: training time so far, over all sittings.
        stale: evaluations since the best one.
        best_value, best_epoch, best_step: the best evaluation on validation; best_value None before the first.
    """

    epoch: int = 1
    batch: int = 0
    step: int = 0
    evaluations: int = 0
    seconds: float = 0.0
    stale: int = 0
    best_value: float | None = None
    best_epoch: int = 0
    best_step: int = 0

    @classmethod
    def restored(cls, content: Mapping[str, Any], epochs: int, batches: int, accumulate: int) -> "Position":
        """Return the position that a checkpoint holds.

        Args:
            content: a value for each attribute.
            epochs: of the run.
            batches: in an epoch.
            accumulate: batches per optimiser step; the last group of an epoch may be smaller.

        Raises:
            ValueError: it is none between two optimiser steps of such a run.
        """
        names = [one.name for one in fields(cls)]
        if set(content) != set(names):
            raise ValueError("its position has other parts")
        counts = [content[name] for name in names if name not in ("seconds", "best_value")]
        if not all(type(count) is int and count >= 0 for count in counts):
            raise ValueError("its position has parts that are no counts")
        numbers = [number for number in (content["seconds"], content["best_value"]) if number is not None]
        if not all(isinstance(number, (int, float)) and not math.isnan(number) for number in numbers):
            raise ValueError("its position has parts that are no numbers")
        found = cls(**content)
        steps = (found.epoch - 1) * math.ceil(batches / accumulate) + math.ceil(found.batch / accumulate)
        inside = (1, 0) <= (found.epoch, found.batch) <= (epochs + 1, 0)
        ends_group = found.batch % accumulate == 0 or found.batch == batches
        possible = inside and found.batch <= batches and ends_group
        if not (possible and found.step == steps and 0 <= found.seconds < math.inf):
            raise ValueError(f"no run has epoch {found.epoch}, batch {found.batch}, step {found.step}")
        if max(found.best_epoch, found.best_step, found.stale) > max(found.epoch, found.step, found.evaluations):
            raise ValueError("its best evaluation lies ahead")
        return found
