"""The frame for rules that learn their feedback by shaking all points at once and watching the error tensor."""

from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from typing_extensions import Unpack

from dfa.base.rule import Patterns, Uses
from dfa.compiling import enter_uncompiled
from dfa.hooks.points import Point, Taps
from dfa.rules.learned import LearnedFeedback, LearnedOptions


class ShakingOptions(LearnedOptions, total=False):
    """Options of `ForwardModeFeedback`."""

    every: int


class ForwardModeFeedback(LearnedFeedback):
    """Learns from s = Σ_l J_l p_l, with J_l = ∂(error tensor)/∂h_l and a Gaussian p_l for every row of every point.

    Forward-mode differentiation carries s along with the training pass itself, for about one more forward pass; nothing
    goes backwards. Since the p are independent, the mean of s p_lᵀ over rows is an estimate of the mean of J_l: the
    part of the error tensor that belongs to a point's own row. How `move` uses it is the rule's.

    The p come from the global generator, so a run that saves its state goes on alike.

    Args:
        model, points, error_at, silent, codec, around_identity: see `LearnedFeedback`. With `around_identity` the
            identity is taken from the estimate.
        every: shake in every n-th forward pass.
        distribution, normalise, scale, batch_dims, seed: of the matrices at the start, see `FeedbackMatrices`.

    Raises:
        ValueError: `every` below 1.
    """

    def __init__(
        self,
        model: nn.Module,
        points: Patterns = (),
        error_at: Patterns = "",
        silent: Patterns = (),
        *,
        every: int = 1,
        **options: Unpack[LearnedOptions],
    ) -> None:
        if every < 1:
            raise ValueError(f"every must be at least 1, got {every}")
        self.every = every
        super().__init__(model, points, error_at, silent, **options)

    @property
    def uses(self) -> Uses:
        return replace(super().uses, extra_forwards=1 / self.every)

    def _tap(self, points: Patterns, error_at: Patterns, silent: Patterns) -> Taps:
        return ShakingTaps(self.model, points, error_at, silent, self)

    @abstractmethod
    def move(self, matrix: Tensor, estimate: Tensor) -> None:
        """Change a matrix in place, given the mean of s pᵀ over rows, in its shape."""

    def learn(self, error_name: str, error: Tensor, points: Sequence[Point]) -> None:
        """Nothing is learned from the error."""

    @torch.no_grad()
    def watch(self, error_name: str, response: Tensor, points: Sequence[Point], shakes: Sequence[Tensor]) -> None:
        """Learn from what became of the shakes p at the error tensor, its response s."""
        if not points:  # all belong to error tensors that fired before
            return
        matrices = self.feedback.matrices(error_name, response, points)
        estimates = {name: torch.zeros_like(matrix) for name, matrix in matrices.items()}
        rows = response.numel() / next(iter(matrices.values())).shape[0]
        firings = Counter(point.name for point in points)
        for point, shake in zip(points, shakes, strict=True):
            estimate = self.feedback.outer(response, shake, point.name) / rows
            if self.around_identity and shake.shape == response.shape:
                estimate.diagonal().sub_(1)
            estimates[point.name] += estimate / firings[point.name]
        for name, matrix in matrices.items():
            self.move(matrix, estimates[name])

    def _learning_state(self) -> dict[str, Any]:
        assert isinstance(self.taps, ShakingTaps)
        return {"forwards": torch.tensor(self.taps.forwards)}

    def _load_learning_state(self, state: dict[str, Any]) -> None:
        assert isinstance(self.taps, ShakingTaps)
        self.taps.forwards = int(state["forwards"])


class ShakingTaps(Taps):
    """Taps that add a tangent to what a point hands on, and hand the error tensor's to the rule.

    Raises:
        PointError: in a forward pass, inside torch.compile, which knows no forward-mode differentiation.
    """

    def __init__(
        self,
        model: nn.Module,
        points: Patterns,
        error_at: Patterns,
        silent: Patterns,
        rule: ForwardModeFeedback,
    ) -> None:
        super().__init__(model, points, error_at, silent, rule)
        self._rule = rule
        self._level = ExitStack()
        self._shaking = False
        self._shakes: list[Tensor] = []
        self.forwards = 0
        self._hooks.append(model.register_forward_hook(self._calm, always_call=True))

    def _start(self, module: nn.Module, arguments: Any) -> None:
        self._calm()
        super()._start(module, arguments)
        if self.mode != "cut" or not self._active or not self.points:
            return
        self._shaking = self.forwards % self._rule.every == 0
        self.forwards += 1
        if self._shaking:
            enter_uncompiled(self._level, self._rule.name)
            self._level.enter_context(forward_ad.dual_level())
            self._level.enter_context(sdpa_kernel(SDPBackend.MATH))  # the only one with a forward mode

    def _calm(self, *_: Any) -> None:
        self._level.close()
        self._shaking, self._shakes = False, []

    def _keep(self, name: str, activation: Tensor) -> None:
        super()._keep(name, forward_ad.unpack_dual(activation).primal if self._shaking else activation)

    def _hand_on(self, activation: Tensor) -> Tensor:
        if not self._shaking or self.mode != "cut":
            return super()._hand_on(activation)
        primal, tangent = forward_ad.unpack_dual(activation)
        shake = torch.randn_like(primal, requires_grad=False)
        self._shakes.append(shake)
        if tangent is not None:  # which some modules put out in another precision than the primal
            shake = shake + tangent.detach().to(shake.dtype)
        return forward_ad.make_dual(primal.detach(), shake)

    def _cross(self, name: str, tensor: Tensor, points: list[Point]) -> Tensor:
        if self._shaking:
            tensor, response = forward_ad.unpack_dual(tensor)
            if response is not None:
                self._rule.watch(name, response.detach(), points, self._shakes)
            self._shakes = []
        return super()._cross(name, tensor, points)
