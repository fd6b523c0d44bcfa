"""What the points of one stage receive, by rule."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import torch
from torch import Tensor

from dfa.base.rule import Rule
from dfa.errors import PointError
from dfa.hooks.neighbours import linked_points, send_between
from dfa.hooks.points import Point
from dfa.rules.dfa import DirectFeedbackAlignment
from dfa.rules.highway import Highway
from dfa.rules.identity import IdentityFeedback
from dfa.rules.shallow import Shallow


class Neighbours(Protocol):
    """The stages above and below, as far as signals know them."""

    def from_above(self, like: Tensor) -> Tensor:
        """Wait for a tensor of this shape and type from the stage above."""

    def to_below(self, tensor: Tensor) -> None:
        """Send a tensor to the stage below, and go on."""


@dataclass(frozen=True)
class StageView:
    """One micro-batch, as one stage knows it.

    Attributes:
        own: points of this stage, with their activations.
        every: points of all stages in the order of the forward pass, as shapes without content.
        later: those of the stages after this one.
        entry: what the stage was given, a leaf, where signals go from point to point; None in the first stage.
        error_tensor: in the last stage.
        neighbours: the stages above and below.
    """

    own: list[Point]
    every: list[Point]
    later: list[Point]
    entry: Tensor | None
    error_tensor: Tensor | None
    neighbours: Neighbours


Signals = Callable[[Any, str, Tensor, StageView], Iterable[Tensor]]


def _dfa_signals(rule: DirectFeedbackAlignment, error_name: str, error: Tensor, stage: StageView) -> Iterable[Tensor]:
    _draw(rule, error_name, error, stage)
    return rule.signals(error_name, error, stage.own)


def _identity_signals(rule: IdentityFeedback, error_name: str, error: Tensor, stage: StageView) -> Iterable[Tensor]:
    _draw(rule, error_name, error, stage)
    on_path = [point for point in stage.later if point.activation.shape == error.shape]  # `damping` counts them
    signals = IdentityFeedback.signals(rule, error_name, error, [*stage.own, *on_path])
    return islice(signals, len(stage.own))


def _highway_signals(rule: Highway, error_name: str, error: Tensor, stage: StageView) -> Iterable[Tensor]:
    """Compute signals in waves; the stage above sends what the topmost point receives, and the change on the path."""
    signals = list(_identity_signals(rule, error_name, error, stage))
    end = None if stage.error_tensor is None else (stage.error_tensor, error)
    path_above = any(point.activation.shape == error.shape for point in stage.later)
    for _ in range(min(rule.waves, len(stage.every))):  # more change nothing
        below, received = send_between(linked_points(stage.own), signals, end, stage.entry)
        if below is not None:
            stage.neighbours.to_below(below)
        change = None
        if stage.error_tensor is None:
            received.append(stage.neighbours.from_above(stage.own[-1].activation))
            change = stage.neighbours.from_above(error) if path_above else None
        signals, change = rule.improved(error, stage.own, signals, received, change)
        if below is not None and change is not None:
            stage.neighbours.to_below(change)
    return signals


def _draw(rule: DirectFeedbackAlignment, error_name: str, error: Tensor, stage: StageView) -> None:
    """Draw the matrices of this stage; one that all points share is as wide as the widest, wherever that lies."""
    rule.prepare(error_name, error, stage.every if rule.feedback.sharing == "shared" else stage.own)


def _no_signals(rule: Shallow, error_name: str, error: Tensor, stage: StageView) -> Iterable[Tensor]:
    return ()


STAGE_SIGNALS: dict[type[Rule], Signals] = {
    DirectFeedbackAlignment: _dfa_signals,
    IdentityFeedback: _identity_signals,
    Highway: _highway_signals,
    Shallow: _no_signals,
}
"""Rule → function (rule, error tensor's name, error, stage) that computes the signals of a stage's own points.

The error has been encoded by the rule's codec. A rule of one's own is added here.
"""


def stage_signals(rule: Rule) -> Signals:
    """Return the function of `STAGE_SIGNALS` for a rule.

    Raises:
        PointError: stages cannot compute this rule's signals on their own.
    """
    found = STAGE_SIGNALS.get(type(rule))
    if found is None:
        known = ", ".join(known.name for known in STAGE_SIGNALS)
        raise PointError(f"rule '{rule.name}' does not run in the stages of a pipeline; those that do: {known}")
    if getattr(rule, "memory", "keep") != "keep":
        raise PointError("memory='recompute' does not go with the stages of a pipeline")
    if isinstance(rule, IdentityFeedback) and rule.on_norms:
        raise PointError(
            f"norms of rule '{rule.name}' do not go with the stages of a pipeline: they lie in other stages"
        )
    if isinstance(rule, Highway) and rule.between is not None:
        raise PointError("rule 'highway' runs in the stages of a pipeline with feedback='transport' only")
    return found


def shape_only(activation: Tensor) -> Tensor:
    """Return a tensor with the shape and type of an activation, and no content."""
    return torch.empty(activation.shape, dtype=activation.dtype, device="meta")
