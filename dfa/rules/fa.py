"""Feedback alignment: backpropagation through fixed random weights."""

from dataclasses import replace

from torch import Tensor, nn

from dfa.base.rule import RULES, Patterns, Points, Uses
from dfa.base.sequential import SequentialRule
from dfa.feedback.distributions import gaussian_like
from dfa.values import check_seed


@RULES.register("fa")
class FeedbackAlignment(SequentialRule):
    """Feedback alignment (Lillicrap et al., 2016): δ_l = (δ_{l+1} B_l) ⊙ f'(a_l), B_l fixed and random.

    Entries of B are Gaussian with the standard deviation that W has at the start.

    Args:
        model, points, error_at, silent, weights: see `SequentialRule`.
        seed: of the draw.
    """

    name = "fa"

    def __init__(
        self,
        model: nn.Module,
        points: Points = (),
        error_at: Patterns = "",
        silent: Patterns = (),
        *,
        weights: Patterns = "**",
        seed: int = 0,
    ) -> None:
        check_seed(seed)
        self._seed = seed
        super().__init__(model, points, error_at, silent, weights=weights)

    def _make_state(self) -> None:
        self._feedback = gaussian_like(self.weights, self._seed)

    @property
    def uses(self) -> Uses:
        return replace(super().uses, state="fixed feedback")

    def feedback_weight(self, name: str) -> Tensor:
        return self._stored_for(name)

    def _stored(self) -> dict[str, Tensor]:
        return self._feedback
