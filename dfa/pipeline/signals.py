"""What the points of one stage receive, by rule."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from dfa.base.rule import Rule
from dfa.errors import PointError
from dfa.hooks.points import Point
from dfa.rules.dfa import DirectFeedbackAlignment
from dfa.rules.identity import IdentityFeedback
from dfa.rules.shallow import Shallow


@dataclass(frozen=True)
class StagePoints:
    """The points of one micro-batch, as one stage knows them.

    Attributes:
        own: of this stage, with their activations.
        every: of all stages in the order of the forward pass, as shapes without content.
        later: those of the stages after this one.
    """

    own: list[Point]
    every: list[Point]
    later: list[Point]


Signals = Callable[[Any, str, Tensor, StagePoints], Iterable[Tensor]]


def _dfa_signals(
    rule: DirectFeedbackAlignment, error_name: str, error: Tensor, points: StagePoints
) -> Iterable[Tensor]:
    _draw(rule, error_name, error, points)
    return rule.signals(error_name, error, points.own)


def _identity_signals(rule: IdentityFeedback, error_name: str, error: Tensor, points: StagePoints) -> Iterable[Tensor]:
    _draw(rule, error_name, error, points)
    on_path = [point for point in points.later if point.activation.shape == error.shape]  # `damping` counts them
    return islice(rule.signals(error_name, error, [*points.own, *on_path]), len(points.own))


def _draw(rule: DirectFeedbackAlignment, error_name: str, error: Tensor, points: StagePoints) -> None:
    """Draw the matrices of this stage; one that all points share is as wide as the widest, wherever that lies."""
    rule.prepare(error_name, error, points.every if rule.feedback.sharing == "shared" else points.own)


def _no_signals(rule: Shallow, error_name: str, error: Tensor, points: StagePoints) -> Iterable[Tensor]:
    return ()


STAGE_SIGNALS: dict[type[Rule], Signals] = {
    DirectFeedbackAlignment: _dfa_signals,
    IdentityFeedback: _identity_signals,
    Shallow: _no_signals,
}
"""Rule → function (rule, error tensor's name, error, points) that computes the signals of a stage's own points.

The error has been encoded by the rule's codec. A rule of one's own is added here, where no point of it needs anything
of another stage but the shapes of its points.
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
    if isinstance(rule, IdentityFeedback) and rule.uses.forward_weights != "none":
        raise PointError("norms of rule 'identity' do not go with the stages of a pipeline: they lie in other stages")
    return found


def shape_only(activation: Tensor) -> Tensor:
    """Return a tensor with the shape and type of an activation, and no content."""
    return torch.empty(activation.shape, dtype=activation.dtype, device="meta")


def split_points(own: list[Point], shapes: Sequence[Sequence[Point]], stage: int) -> StagePoints:
    """Set a stage's points beside the shapes of those of all stages, in the stages' order."""
    every = [point for points in shapes for point in points]
    return StagePoints(own, every, [point for points in shapes[stage + 1 :] for point in points])
