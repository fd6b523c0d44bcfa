"""Direct feedback alignment and the frame for rules that, like it, send the output error straight to every point."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dfa.errors import PointError
from dfa.feedback import FeedbackMatrices, Sharing
from dfa.points import Pass, Point, Taps
from dfa.rules.base import RULES, Patterns, Rule, check_differentiable


class DirectRule(Rule):
    """A rule that turns the error at the error tensor into a signal for each point; `signals` says how.

    `backward` runs autograd from the loss down to the cut error tensor, which trains what lies above it with the true
    error, and then once from the error tensor and all points together. No gradient crosses a point.
    """

    def _tap(self, points: Patterns, error_at: Patterns, silent: Patterns) -> Taps:
        return Taps(self.model, points, error_at, silent)

    def signals(self, error_name: str, error: Tensor, points: Sequence[Point]) -> list[Tensor]:
        """Signal for each point, shaped like its activation.

        Args:
            error_name: module the error was taken at.
            error: ∂loss/∂(error tensor), in the error tensor's shape.
            points: the points of one forward pass.
        """
        raise NotImplementedError

    def backward(self, loss: Tensor) -> None:
        """Raise PointError where no forward pass was recorded, the loss does not reach the error tensor, a point
        never fired, or nothing below a point can learn."""
        if not self.taps.passes:
            raise PointError(
                "no forward pass with an error tensor was recorded since the last backward"
                f" (error_at: {', '.join(name or 'model output' for name in self.taps.error_names)})"
            )
        self.taps.check_all_fired()
        check_differentiable(loss)
        loss.backward()
        reached = [record for record in self.taps.passes if record.error.grad is not None]
        if not reached:
            raise PointError("the loss does not depend on the error tensor: no error arrived there")
        self.taps.passes = [record for record in self.taps.passes if record.error.grad is None]
        roots, gradients = self._roots(reached)
        torch.autograd.backward(roots, gradients)

    def _roots(self, passes: Sequence[Pass]) -> tuple[list[Tensor], list[Tensor]]:
        roots: list[Tensor] = []
        gradients: list[Tensor] = []
        for record in passes:
            error = record.error.grad
            assert error is not None
            if record.output.requires_grad:  # not so where the error tensor is itself a point
                roots.append(record.output)
                gradients.append(error)
            for point in record.points:
                if not point.activation.requires_grad:
                    raise PointError(f"feedback point '{point.name}' has nothing below it that could learn")
            roots += [point.activation for point in record.points]
            gradients += self.signals(record.error_name, error, record.points)
        if not roots:
            raise PointError("the model's output is not differentiable: nothing in it requires a gradient")
        return roots, gradients


@RULES.register("dfa")
class DirectFeedbackAlignment(DirectRule):
    """Direct feedback alignment (Nøkland, 2016), as run by Launay et al. (2020).

    The signal of point l is e B_l instead of backpropagation's e ∂(error tensor)/∂h_l, with B_l fixed and random.

    Args:
        model, points, error_at, silent: see `Rule`.
        distribution, sharing, normalise, scale, batch_dims, seed: of the matrices, see `FeedbackMatrices`.
    """

    name = "dfa"

    def __init__(
        self,
        model: nn.Module,
        points: Patterns = (),
        error_at: Patterns = "",
        silent: Patterns = (),
        *,
        distribution: str = "uniform",
        sharing: Sharing = "shared",
        normalise: bool = True,
        scale: float = 1.0,
        batch_dims: int | None = None,
        seed: int = 0,
    ) -> None:
        self.feedback = FeedbackMatrices(distribution, sharing, normalise, scale, batch_dims, seed)
        super().__init__(model, points, error_at, silent)

    def signals(self, error_name: str, error: Tensor, points: Sequence[Point]) -> list[Tensor]:
        if points and any(buffer.device != error.device for buffer in self.feedback.buffers()):
            self.feedback.to(error.device)
        return self.feedback.signals(error_name, error, points)

    def state_dict(self) -> dict[str, Any]:
        return self.feedback.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.feedback.load_state_dict(state)
