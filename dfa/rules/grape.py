"""GrAPE: feedback that turns towards the Jacobian."""

from torch import Tensor, nn
from typing_extensions import Unpack

from dfa.base.rule import RULES, Patterns, Points
from dfa.rules.forward_mode import ForwardModeFeedback, ForwardModeOptions
from dfa.values import check_number


@RULES.register("grape")
class GradientAlignedFeedback(ForwardModeFeedback):
    """Gradient-aligned projected error (Caillon et al., 2026): a step of B_l on Σ_j (1 - cos(b_j, g_j)).

    b_j is column j of B_l, scaled to length one, and g_j that of G_l, the mean over rows of s p_lᵀ with s the error
    tensor's response to perturbations of all points, see `ForwardModeFeedback`:

        b_j ← b_j + η (g_j/|g_j| - cos(b_j, g_j) b_j).

    Only directions are learned: after the step, each column is scaled to the length that it was drawn with. For an
    error of one number a row, a column is one number, and nothing is learned, which a warning says.
    The paper's exact batches are the rule `calibrate`'s.

    Args:
        model, points, error_at, silent, codec, around_identity, every: see `ForwardModeFeedback`.
        lr: η.
        Others: of the matrices at the start, see `FeedbackMatrices`.

    Raises:
        FeedbackError: a negative η, or one that is not finite.
    """

    name = "grape"

    def __init__(
        self,
        model: nn.Module,
        points: Points = (),
        error_at: Patterns = "",
        silent: Patterns = (),
        *,
        lr: float = 0.05,
        **options: Unpack[ForwardModeOptions],
    ) -> None:
        check_number("lr", lr, 0)
        super().__init__(model, points, error_at, silent, **options)
        self.lr = lr

    def update(self, matrix: Tensor, estimate: Tensor) -> None:
        if len(matrix) == 1:
            self.warn_once(
                "for an error of one number a row there are no directions to learn: matrices stay, as under 'dfa'"
            )
        lengths = matrix.norm(dim=0)
        columns = nn.functional.normalize(matrix, dim=0)
        wanted = nn.functional.normalize(estimate, dim=0)
        cosines = (columns * wanted).sum(dim=0)
        columns += self.lr * (wanted - cosines * columns)
        matrix.copy_(nn.functional.normalize(columns, dim=0) * lengths)
