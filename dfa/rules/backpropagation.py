"""Backpropagation, behind the same contract as the rules it is compared with."""

from torch import Tensor

from dfa.base.rule import RULES, Patterns, Rule, Uses, check_differentiable, idle_taps
from dfa.hooks.points import Taps


@RULES.register("bp")
class Backpropagation(Rule):
    """The exact gradient, by autograd. Patterns are checked, so that a typo shows under every rule, and not used."""

    name = "bp"

    @property
    def uses(self) -> Uses:
        return Uses(forward_weights="all", sequential=True, bp_batches=1.0)

    def _tap(self, points: Patterns, error_at: Patterns, silent: Patterns) -> Taps:
        return idle_taps(self.model, points, error_at, silent)

    def backward(self, loss: Tensor) -> None:
        check_differentiable(loss)
        loss.backward()
