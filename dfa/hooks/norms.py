"""Normalisations on the residual path, as they ran in a forward pass."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class PassedNorm:
    """A layer normalisation α û + β of rows u, û = (u - mean(u)) / σ, as it ran in a forward pass.

    Attributes:
        normalised: û, (…, width).
        inverse: 1/σ, (…, 1).
        gains: α, (width,).
    """

    normalised: Tensor
    inverse: Tensor
    gains: Tensor

    def send_down(self, signal: Tensor) -> Tensor:
        """Multiply a signal s, (…, width), by the transposed Jacobian: (g - mean(g) - û mean(û g)) / σ with g = α s."""
        scaled = signal * self.gains
        along = (scaled * self.normalised).mean(-1, keepdim=True)
        return self.inverse * (scaled - scaled.mean(-1, keepdim=True) - self.normalised * along)
