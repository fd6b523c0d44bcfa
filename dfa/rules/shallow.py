"""The frozen control: no signal is sent below the feedback points."""

from torch import Tensor

from dfa.base.rule import RULES, Patterns, Points, Rule, check_differentiable, check_placement, check_some_points
from dfa.hooks.derivatives import FrozenRecorder
from dfa.hooks.model import FeedbackHooks


@RULES.register("shallow")
class Shallow(Rule):
    """Cuts the graph at the feedback points and sends nothing.

    Only what lies above the topmost point learns, and any branch that bypasses the points; parameters below keep
    `.grad` None, so that no optimiser, momentum or weight decay touches them.

    Raises:
        PointError: no points.
    """

    name = "shallow"

    def _make_hooks(self, points: Points, error_at: Patterns, silent: Patterns) -> FeedbackHooks:
        check_some_points(self.name, points)
        check_placement(self.model, points, error_at, silent)
        return FeedbackHooks(self.model, points, None, silent, FrozenRecorder())

    def backward(self, loss: Tensor) -> None:
        self.hooks.check_all_reached()
        check_differentiable(loss)
        loss.backward()
