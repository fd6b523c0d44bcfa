"""The frozen control: what a network learns when nothing is sent below its feedback points."""

from torch import Tensor

from dfa.points import Taps
from dfa.rules.base import RULES, Patterns, Rule


@RULES.register("shallow")
class Shallow(Rule):
    """Cuts the graph at the feedback points and sends nothing.

    Only what lies above the topmost point learns, and any branch that bypasses the points; parameters below keep
    `.grad` None, so that no optimiser, momentum or weight decay touches them.
    """

    name = "shallow"

    def _tap(self, points: Patterns, error_at: Patterns, silent: Patterns) -> Taps:
        return Taps(self.model, points, None, silent)

    def backward(self, loss: Tensor) -> None:
        loss.backward()
