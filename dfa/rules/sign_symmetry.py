"""Sign symmetry: backpropagation through the signs of the weights."""

from dataclasses import replace
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from dfa.base.rule import RULES, Patterns, Points, Uses
from dfa.base.sequential import SequentialRule
from dfa.feedback.distributions import gaussian_like
from dfa.values import check_choice, check_seed

Magnitude = Literal["uniform", "fixed_random"]


@RULES.register("sign_symmetry")
class SignSymmetry(SequentialRule):
    """Sign symmetry (Liao et al., 2016): δ_l = (δ_{l+1} V_l) ⊙ f'(a_l) with V_l = M_l ⊙ sign(W_l).

    Only the signs of the weights are transported. The magnitudes M stay what they were at the start: "uniform", the
    mean of |W| (uSF), or "fixed_random", |Gaussian| with the standard deviation of W (frSF); the names are those of
    Moskovitz et al. (2018).

    Args:
        model, points, error_at, silent, weights: see `SequentialRule`.
        magnitude: "uniform" or "fixed_random".
        seed: of the draw.

    Raises:
        FeedbackError: another magnitude.
    """

    name = "sign_symmetry"
    takes_complex = False  # as they have no sign

    def __init__(
        self,
        model: nn.Module,
        points: Points = (),
        error_at: Patterns = "",
        silent: Patterns = (),
        *,
        weights: Patterns = "**",
        magnitude: Magnitude = "uniform",
        seed: int = 0,
    ) -> None:
        check_choice("magnitude", magnitude, get_args(Magnitude))
        check_seed(seed)
        self._magnitude, self._seed = magnitude, seed
        super().__init__(model, points, error_at, silent, weights=weights)

    def _make_state(self) -> None:
        self._magnitudes = {name: drawn.abs_() for name, drawn in gaussian_like(self.weights, self._seed).items()}
        if self._magnitude == "uniform":
            for name, weight in self.weights.items():
                mean = weight.detach().abs().mean()
                self._magnitudes[name].fill_(mean if mean > 0 else weight[0].numel() ** -0.5)

    @property
    def uses(self) -> Uses:
        return replace(super().uses, forward_weights="signs", state="fixed feedback")

    @torch.no_grad()
    def feedback_weight(self, name: str) -> Tensor:
        magnitude = self._stored_for(name)
        return torch.empty_like(magnitude).copy_(self.weights[name]).sign_().mul_(magnitude)  # in the weight's layout

    def _stored(self) -> dict[str, Tensor]:
        return self._magnitudes
