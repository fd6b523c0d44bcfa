"""The frozen control: no signal is sent below the feedback points."""

from torch import Tensor

from dfa.base.rule import RULES, Patterns, Rule, check_differentiable
from dfa.hooks.model import FeedbackHooks
from dfa.patterns import find_modules


@RULES.register("shallow")
class Shallow(Rule):
    """Cuts the graph at the feedback points and sends nothing.

    Only what lies above the topmost point learns, and any branch that bypasses the points; parameters below keep
    `.grad` None, so that no optimiser, momentum or weight decay touches them.
    """

    name = "shallow"

    def _make_hooks(self, points: Patterns, error_at: Patterns, silent: Patterns) -> FeedbackHooks:
        find_modules(self.model, error_at)  # unused, but every rule reports a typo
        return FeedbackHooks(self.model, points, None, silent)

    def backward(self, loss: Tensor) -> None:
        self.hooks.check_all_reached()
        check_differentiable(loss)
        loss.backward()
