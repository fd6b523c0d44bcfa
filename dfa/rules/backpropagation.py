"""Backpropagation, behind the same contract as the rules it is compared with."""

from torch import Tensor

from dfa.base.rule import RULES, Patterns, Points, Rule, Uses, check_differentiable, hooks_without_points
from dfa.hooks.model import FeedbackHooks


@RULES.register("bp")
class Backpropagation(Rule):
    """The exact gradient, by autograd. Patterns are checked, so that every rule reports a typo, and not used."""

    name = "bp"

    @property
    def uses(self) -> Uses:
        return Uses(forward_weights="all", sequential=True, bp_batches=1.0)

    def _make_hooks(self, points: Points, error_at: Patterns, silent: Patterns) -> FeedbackHooks:
        return hooks_without_points(self.model, points, error_at, silent)

    def backward(self, loss: Tensor) -> None:
        check_differentiable(loss)
        loss.backward()
