"""The frame for rules whose feedback matrices learn."""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, TypedDict

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from dfa.base.rule import Patterns, Points, Uses
from dfa.errors import FeedbackError, PointError
from dfa.feedback.states import check_entries
from dfa.hooks.points import Point
from dfa.rules.dfa import DirectFeedbackAlignment


class StartOptions(TypedDict, total=False):
    """Options of the matrices at the start, and of the error that reaches them."""

    distribution: str
    normalise: bool
    scale: float
    batch_dims: int | None
    seed: int
    codec: str | None


class LearnedOptions(StartOptions, total=False):
    """Options of `LearnedFeedback`."""

    around_identity: bool


class LearnedFeedback(DirectFeedbackAlignment):
    """Direct feedback through matrices, one for each point, that `learn` updates whenever an error arrives.

    A batch whose numbers are not finite teaches nothing, so that matrices outlive one that a GradScaler skips. Under
    DistributedDataParallel all processes learn the mean of what each would.

    Args:
        model, points, error_at, silent, codec: see `DirectRule`.
        around_identity: points of the error's shape have B = I + ΔB, with ΔB the matrix that learns.
        distribution, normalise, scale, batch_dims, seed: of the matrices at the start, see `FeedbackMatrices`;
            `scale=0` starts from zero.
    """

    def __init__(
        self,
        model: nn.Module,
        points: Points = (),
        error_at: Patterns = "",
        silent: Patterns = (),
        *,
        around_identity: bool = False,
        **options: Unpack[StartOptions],
    ) -> None:
        self.around_identity = around_identity
        super().__init__(model, points, error_at, silent, sharing="per_point", **options)

    @property
    def uses(self) -> Uses:
        return replace(super().uses, state="learned feedback")

    def signals(self, error_name: str, error: Tensor, points: Sequence[Point]) -> Iterable[Tensor]:
        for point, signal in zip(points, self.projected(error_name, error, points), strict=True):
            straight = self.around_identity and point.activation.shape == error.shape
            yield signal + error.to(signal.dtype) if straight else signal

    def projected(self, error_name: str, error: Tensor, points: Sequence[Point]) -> Iterable[Tensor]:
        """Compute the error times the matrix of each point."""
        return super().signals(error_name, error, points)

    @abstractmethod
    def learn(self, error_name: str, error: Tensor, points: Sequence[Point]) -> None:
        """Update the matrices in place, after the signals of this error have been computed.

        Args:
            error_name: module whose output is the error tensor ("" for the model).
            error: ∂loss/∂(error tensor), encoded by the codec.
            points: the points of one forward pass.
        """

    def training_signals(self, error_name: str, error: Tensor, points: Sequence[Point]) -> Iterable[Tensor]:
        error = self.arriving(error, points)
        self.check_real([error, *(point.activation for point in points)])
        signals = list(self.signals(error_name, error, points))
        with torch.no_grad():
            self.learn(error_name, error, points)
        return signals

    def check_real(self, tensors: Sequence[Tensor]) -> None:
        """Check that matrices can learn from tensors.

        Raises:
            FeedbackError: one is complex.
        """
        if any(tensor.is_complex() for tensor in tensors):
            raise FeedbackError(f"rule '{self.name}' learns from real numbers only, and here are complex ones")

    def prepare(self, error_name: str, error: Tensor, points: Sequence[Point]) -> None:
        raise PointError(f"rule '{self.name}' cannot learn from within a compiled graph; compile parts of the model")

    def state_dict(self) -> dict[str, Any]:
        return {"feedback": super().state_dict(), **self._learning_state()}

    def check_state_dict(self, state: dict[str, Any]) -> None:
        check_entries(self.name, state, ["feedback", *self._learning_state()])
        super().check_state_dict(state["feedback"])
        self._check_learning_state(state)

    def _take_up(self, state: dict[str, Any]) -> None:
        super()._take_up(state["feedback"])
        self._load_learning_state(state)

    def _learning_state(self) -> dict[str, Any]:
        """Return the state to be saved beside the matrices."""
        return {}

    def _check_learning_state(self, state: dict[str, Any]) -> None:
        """Check a state with what `_learning_state` returns; raise `FeedbackError` where it does not fit."""

    def _load_learning_state(self, state: dict[str, Any]) -> None:
        """Replace the state by one that `_learning_state` returned."""
