"""Kolen and Pollack's rule: feedback weights that move with the weights, and meet them."""

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn

from dfa.base.rule import RULES, Patterns, Uses
from dfa.base.sequential import SequentialRule, gaussian_like
from dfa.values import check_number, check_seed


@RULES.register("kolen_pollack")
class KolenPollack(SequentialRule):
    """Kolen and Pollack's rule (1994; Akrout et al., 2019): weights and feedback change and decay alike.

        W ← (1 - λ) W + ΔW,    B ← (1 - λ) B + ΔW.

    ΔW, which is what the optimiser does to W, can be had at both synapses, so no weight is transported. The difference
    B - W does not depend on ΔW and shrinks by 1 - λ a batch; it is what is kept here, and B is made from it.

    Args:
        model, points, error_at, silent, weights: see `SequentialRule`.
        decay: λ, from 0 to 1, for each `backward`; applied to the model's weights too, to those that learn and have a
            part in the backward pass.
        seed: of the feedback weights at the start, which are drawn as those of `fa`.
    """

    name = "kolen_pollack"

    def __init__(
        self,
        model: nn.Module,
        points: Patterns = (),
        error_at: Patterns = "",
        silent: Patterns = (),
        *,
        weights: Patterns = "**",
        decay: float = 1e-3,
        seed: int = 0,
    ) -> None:
        check_number("decay", decay, 0, 1)
        check_seed(seed)
        super().__init__(model, points, error_at, silent, weights=weights)
        self.decay = decay
        with torch.no_grad():
            drawn = gaussian_like(self.weights, seed)
            self._differences = {name: feedback.sub_(self.weights[name]) for name, feedback in drawn.items()}

    @property
    def uses(self) -> Uses:
        return replace(super().uses, state="learned feedback")

    @torch.no_grad()
    def feedback_weight(self, name: str) -> Tensor:
        difference = self._stored_for(name)
        return torch.empty_like(difference).copy_(self.weights[name]).add_(difference)

    def backward(self, loss: Tensor) -> None:
        super().backward(loss)
        self.decay_both(name for name in self.replaced if self.weights[name].requires_grad)

    @torch.no_grad()
    def decay_both(self, names: Iterable[str]) -> None:
        """Let the weights of these names and their feedback decay by 1 - λ."""
        for name in names:
            self.weights[name].mul_(1 - self.decay)
            self._stored_for(name).mul_(1 - self.decay)

    def _stored(self) -> dict[str, Tensor]:
        return self._differences
