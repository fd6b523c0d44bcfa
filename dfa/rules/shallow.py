"""The frozen control: what a network learns when nothing is sent below its feedback points."""

from torch import Tensor

from dfa.base.rule import RULES, Patterns, Rule, check_differentiable
from dfa.hooks.points import Taps
from dfa.patterns import find_modules


@RULES.register("shallow")
class Shallow(Rule):
    """Cuts the graph at the feedback points and sends nothing.

    Only what lies above the topmost point learns, and any branch that bypasses the points; parameters below keep
    `.grad` None, so that no optimiser, momentum or weight decay touches them.
    """

    name = "shallow"

    def _tap(self, points: Patterns, error_at: Patterns, silent: Patterns) -> Taps:
        find_modules(self.model, error_at)  # not needed here, but a typo shows under every rule
        return Taps(self.model, points, None, silent)

    def backward(self, loss: Tensor) -> None:
        self.taps.check_all_fired()
        check_differentiable(loss)
        loss.backward()
