"""Signals from point to point inside one stage."""

from collections.abc import Sequence

import torch
from torch import Tensor

from dfa.hooks.neighbours import LinkedPoint
from dfa.hooks.points import Point


def send_down_in_stage(
    points: Sequence[Point],
    signals: Sequence[Tensor],
    error: Tensor,
    entry: Tensor | None,
    error_tensor: Tensor | None,
) -> tuple[Tensor | None, list[Tensor]]:
    """Send the signals of one stage's points down to the nearest points, as `dfa.hooks.neighbours.send_down` does.

    Args:
        points: linked points of the stage.
        signals: of each point.
        error: that the error tensor sends.
        entry: what the stage was given; None in the first one.
        error_tensor: in the last stage; None elsewhere, where the stage above sends to the topmost point.

    Returns:
        what the topmost point of the stage below receives, and what each point of this stage receives, without the
        topmost one where the stage above sends to it.
    """
    linked = [point for point in points if isinstance(point, LinkedPoint)]
    outputs = [point.activation for point in linked]
    sent = list(signals)
    inputs = [] if entry is None else [entry]
    inputs += [point.above for point in (linked if error_tensor is not None else linked[:-1])]
    if error_tensor is not None and error_tensor.requires_grad:
        outputs, sent = [*outputs, error_tensor], [*sent, error]
    if not inputs:
        return None, []
    received = list(torch.autograd.grad(outputs, inputs, sent, retain_graph=True, materialize_grads=True))
    return (None, received) if entry is None else (received[0], received[1:])
