"""Weights that take the place of W where signals go from block to block, and nowhere else."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from dfa.base.rule import Patterns, Points
from dfa.base.sequential import SequentialRule
from dfa.hooks.model import FeedbackHooks
from dfa.rules.kolen_pollack import KolenPollack
from dfa.rules.sign_symmetry import SignSymmetry


class BetweenBlocks(SequentialRule):
    """Frame for feedback weights that replace W within `sending`; elsewhere the backward pass goes through W itself.

    Args:
        model: the module to train.
        hooks: of the rule that sends.
        options: of the feedback weights.

    Attributes:
        crossed: names of the weights that signals have gone through in this batch.
    """

    name = "highway"
    _sending = False

    def __init__(self, model: nn.Module, hooks: FeedbackHooks, **options: Any) -> None:
        self._shared = hooks
        super().__init__(model, **options)
        self.crossed: set[str] = set()

    def _make_hooks(self, points: Points, error_at: Patterns, silent: Patterns) -> FeedbackHooks:
        return self._shared

    def _attach(self) -> list[RemovableHandle]:
        return []

    def feedback_weight(self, name: str) -> Tensor:
        return super().feedback_weight(name) if self._sending else self.weights[name].detach()

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Run a block in which feedback weights take the place of W."""
        self.replaced.clear()
        self._sending = True
        try:
            yield
        finally:
            self._sending = False
            self.crossed |= self.replaced

    def end_batch(self, scaled: bool) -> None:
        """Change feedback and weights as a batch changes them, beside the optimiser's step.

        Args:
            scaled: whether a GradScaler may leave out that step.
        """
        self.crossed.clear()


class SignsBetweenBlocks(BetweenBlocks, SignSymmetry):
    """sign(W) times the mean of |W| at the start, see `SignSymmetry`."""


class LearnedBetweenBlocks(BetweenBlocks, KolenPollack):
    """Weights that change and decay as W does, see `KolenPollack`."""

    def end_batch(self, scaled: bool) -> None:
        self.decay_both(self.crossed, scaled)
        super().end_batch(scaled)


class LearnedFromZeroBetweenBlocks(LearnedBetweenBlocks):
    """The sum of all that W has been changed by: B begins at zero, and nothing decays."""

    def __init__(self, model: nn.Module, hooks: FeedbackHooks) -> None:
        super().__init__(model, hooks, decay=0.0)

    @torch.no_grad()
    def _make_state(self) -> None:
        super()._make_state()
        for name, difference in self._stored().items():
            difference.copy_(self.weights[name]).neg_()
