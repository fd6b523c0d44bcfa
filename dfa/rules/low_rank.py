"""Feedback of low rank: the error goes through a narrow channel that learns its principal directions."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from dfa.base.agreement import agree
from dfa.base.rule import RULES, Patterns, Points
from dfa.errors import FeedbackError
from dfa.feedback.distributions import seed_of
from dfa.feedback.states import check_matrices
from dfa.hooks.points import Point
from dfa.precision import at_least_single, without_autocast
from dfa.rules.learned import LearnedFeedback, LearnedOptions
from dfa.values import check_count, check_number


@RULES.register("low_rank")
class LowRankFeedback(LearnedFeedback):
    """Low-rank feedback, B_l = P Q_l, after Hanut and Kadmon (2025).

    P (error width × r) is shared, and the Q_l (r × width) are random. Of e only the r numbers e P are sent.
    P starts orthonormal and moves towards the r directions in which the error varies most, by Oja's subspace rule on
    the errors e scaled to mean square one (η `lr`, rows r):

        P ← P + η Σ_r (e_rᵀ y_r - P y_rᵀ y_r) / Σ_r |e_r|²,    y = e P.

    With r the error's width or more, all of e is sent, and P stays as it is, which a warning says.

    Args:
        model, points, error_at, silent, codec, around_identity: see `LearnedFeedback`.
        rank: r; where it is above the error's width, that width.
        lr: η, from 0 (P stays random) to 1.
        Others: of the matrices Q, see `FeedbackMatrices`.

    Raises:
        FeedbackError: a rank below 1, or an `lr` outside 0 to 1.
    """

    name = "low_rank"

    def __init__(
        self,
        model: nn.Module,
        points: Points = (),
        error_at: Patterns = "",
        silent: Patterns = (),
        *,
        rank: int = 16,
        lr: float = 0.1,
        **options: Unpack[LearnedOptions],
    ) -> None:
        check_count("rank", rank)
        check_number("lr", lr, 0, 1)
        super().__init__(model, points, error_at, silent, **options)
        self.rank, self.lr, self.seed = rank, lr, options.get("seed", 0)
        self.channels: dict[str, Tensor] = {}

    def projected(self, error_name: str, error: Tensor, points: Sequence[Point]) -> Iterable[Tensor]:
        rows = self._rows(error)
        with without_autocast(error):
            sent = rows @ self._channel(error_name, rows)
        leading = min(self.feedback.batch_dims or error.ndim, error.ndim - 1)
        width = sent.shape[1] if leading else -1  # not -1 with no rows, where any width would do
        return super().projected(error_name, sent.reshape(*error.shape[:leading], width), points)

    def learn(self, error_name: str, error: Tensor, points: Sequence[Point]) -> None:
        rows = self._rows(error)
        channel = self._channel(error_name, rows)
        total = rows.square().sum()
        with without_autocast(error):
            sent = rows @ channel
            change = rows.T @ sent - channel @ (sent.T @ sent)
        if agree([change, total], self.model, self.name):
            channel += self.lr * torch.where(total > 0, change / total, torch.zeros_like(change))

    def _rows(self, error: Tensor) -> Tensor:
        """Reshape the error to (rows, width)."""
        return at_least_single(self.feedback.rows(error))

    def _channel(self, error_name: str, rows: Tensor) -> Tensor:
        """Return P of an error tensor, drawn if this is the first time."""
        if error_name not in self.channels:
            width = rows.shape[1]
            if self.rank >= width:
                self.warn_once(
                    f"a rank of {self.rank} is not below the error's width, {width}: all of it is sent, as under 'dfa',"
                    " and nothing is learned"
                )
            generator = torch.Generator().manual_seed(seed_of(self.seed, f"{error_name}:channel"))
            size = width, min(self.rank, width)
            gaussian = torch.randn(size, generator=generator, dtype=torch.double, device="cpu")
            self.channels[error_name] = torch.linalg.qr(gaussian)[0]
        channel = self.channels[error_name] = self.channels[error_name].to(rows)
        return channel

    def matrix_shapes(self) -> dict[str, tuple[int, ...]]:
        channels = {f"{name or '(output)'}:channel": tuple(channel.shape) for name, channel in self.channels.items()}
        return {**channels, **super().matrix_shapes()}

    def _learning_state(self) -> dict[str, Any]:
        return {"channels": dict(self.channels)}

    def _check_learning_state(self, state: dict[str, Any]) -> None:
        check_matrices(state["channels"], self.hooks.error_names)
        for name, channel in state["channels"].items():
            if channel.shape[1] != min(self.rank, channel.shape[0]):
                raise FeedbackError(
                    f"the saved channel of '{name or 'model output'}' has rank {channel.shape[1]}, and this rule"
                    f" {self.rank}"
                )

    def _load_learning_state(self, state: dict[str, Any]) -> None:
        self.channels = {name: channel.clone() for name, channel in state["channels"].items()}
