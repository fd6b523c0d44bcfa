"""Forward direct feedback alignment: feedback that becomes the mean Jacobian."""

from torch import Tensor, nn
from typing_extensions import Unpack

from dfa.base.rule import RULES, Patterns, Points
from dfa.rules.forward_mode import ForwardModeFeedback, ForwardModeOptions
from dfa.values import check_number


@RULES.register("fdfa")
class ForwardDirectFeedback(ForwardModeFeedback):
    """Forward DFA (Bacho and Chu, 2022): B_l ← (1 - β) B_l + β · mean over rows of s p_lᵀ.

    s = Σ_l J_l p_l is the error tensor's response to random perturbations p_l of all points, see `ForwardModeFeedback`:
    B_l becomes a running mean of the Jacobian ∂(error tensor)/∂h_l.

    Args:
        model, points, error_at, silent, codec, around_identity, every: see `ForwardModeFeedback`.
        beta: β, from 0 to 1.
        Others: of the matrices at the start, see `FeedbackMatrices`.

    Raises:
        FeedbackError: β out of range.
    """

    name = "fdfa"

    def __init__(
        self,
        model: nn.Module,
        points: Points = (),
        error_at: Patterns = "",
        silent: Patterns = (),
        *,
        beta: float = 0.01,
        **options: Unpack[ForwardModeOptions],
    ) -> None:
        check_number("beta", beta, 0, 1)
        super().__init__(model, points, error_at, silent, **options)
        self.beta = beta

    def update(self, matrix: Tensor, estimate: Tensor) -> None:
        matrix.lerp_(estimate, self.beta)
