"""Waves of signals along the residual path: all blocks send to the blocks below at the same time."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, Literal, get_args

from torch import Tensor, nn
from typing_extensions import Unpack

from dfa.base.rule import RULES, Patterns, Points, Uses, check_differentiable
from dfa.base.scaling import may_be_scaled
from dfa.errors import FeedbackError
from dfa.feedback.matrices import MatrixOptions
from dfa.feedback.states import check_entries
from dfa.hooks.model import FeedbackHooks
from dfa.hooks.neighbours import LinkingRecorder, exchange_between, send_down
from dfa.hooks.points import Point, Recorder
from dfa.rules.between_blocks import (
    BetweenBlocks,
    LearnedBetweenBlocks,
    LearnedFromZeroBetweenBlocks,
    SignsBetweenBlocks,
)
from dfa.rules.fitted import FittedBetweenBlocks
from dfa.rules.identity import IdentityFeedback, Otherwise
from dfa.values import check_choice, check_count, check_number

Feedback = Literal["transport", "learned_zero", "fitted", "kolen_pollack", "sign"]
DECAY = 5e-4
"""λ where none is given."""
EVERY = 10
"""n where none is given."""


class HighwayOptions(MatrixOptions, total=False):
    """Options of the random matrices, and of the error on its way."""

    codec: str | None


@RULES.register("highway")
class Highway(IdentityFeedback):
    """Waves of signals along the residual path, through the weights W or through others that need no transport.

    Backpropagation's signals satisfy s_l = J_{l+1}ᵀ s_{l+1}, J_l being the Jacobian of the part between points l-1 and
    l. Of J_lᵀ the path K_l is known beforehand: damping, and the normalisations on it, see `IdentityFeedback`. Signals
    start as those of `identity`, s_l = K_{l+1} ⋯ K_L e, and each wave improves all at once, from s to s':

        s_l' = J_{l+1}ᵀ s_{l+1} + K_{l+1} (s_{l+1}' - s_{l+1}).

    With K = I, after one wave, s_l' = e + Σ_{j>l} (J_jᵀ e - e): the products J_jᵀ e of all parts are computed at the
    same time, and sums along the path do the rest. This is Highway-BP (Fagnou et al., *Accelerated Training through
    Iterative Gradient Propagation Along the Residual Path*, 2025). Every wave makes one more point exact, from the top,
    so that as many waves as there are points are backpropagation. Where no path leads, at points of another shape than
    the error's, K is 0: a wave takes s_l' = J_{l+1}ᵀ s_{l+1}, and signals start as `otherwise` says.

    Inside each part of the model, weights learn from its signal by exact backpropagation. Between the points, products
    with Jᵀ can go through other weights than W:

        transport: W.
        learned_zero: B = 0 at the start, B ← B + ΔW with ΔW all that W is changed by.
        fitted: the same, and B is fitted by least squares to what the layers between the points, which must be
            `nn.Linear`, take in and give out, see `FittedBetweenBlocks` in `dfa.rules.fitted`.
        kolen_pollack: B random at the start, B ← (1 - λ) B + ΔW and W ← (1 - λ) W + ΔW, see `KolenPollack`.
        sign: sign(W) times the mean of |W| at the start, see `SignSymmetry`.

    In these products the gains of normalisations are the model's own.

    Args:
        model, points, error_at, silent, codec: see `DirectRule`.
        waves: 0 is `identity`.
        feedback: see above.
        decay: λ of "kolen_pollack", from 0 to 1, for each `backward`.
        every: of "fitted": fit in every n-th `backward`, beginning with the first; None: n = `EVERY`.
        damping, norms, otherwise: of the path, see `IdentityFeedback`.
        seed: of the random weights and matrices.
        Others: of the random matrices, see `FeedbackMatrices`.

    Raises:
        FeedbackError: an unknown feedback, a number out of range, or `every` or another `decay` than `DECAY` for a
            feedback that does not use it.
        PointError: see `IdentityFeedback` and `FittedBetweenBlocks`; in a forward pass, inside torch.compile.
    """

    name = "highway"

    def __init__(
        self,
        model: nn.Module,
        points: Points = (),
        error_at: Patterns = "",
        silent: Patterns = (),
        *,
        waves: int = 1,
        feedback: Feedback = "transport",
        decay: float = DECAY,
        every: int | None = None,
        damping: float = 1.0,
        norms: Patterns = (),
        otherwise: Otherwise = "dfa",
        **options: Unpack[HighwayOptions],
    ) -> None:
        check_count("waves", waves, 0)
        check_choice("feedback", feedback, get_args(Feedback))
        check_number("decay", decay, 0, 1)
        if decay != DECAY and feedback != "kolen_pollack":
            raise FeedbackError(f"decay is an option of feedback 'kolen_pollack', and feedback is '{feedback}'")
        if every is not None and feedback != "fitted":
            raise FeedbackError(f"every is an option of feedback 'fitted', and feedback is '{feedback}'")
        every = EVERY if every is None else every
        check_count("every", every)
        self.waves = waves
        super().__init__(model, points, error_at, silent, damping=damping, norms=norms, otherwise=otherwise, **options)
        self.between: BetweenBlocks | None = None
        if waves:
            seed = options.get("seed", 0)
            try:
                self.between = _weights_between_blocks(self.model, self.hooks, feedback, decay, every, seed)
            except BaseException:
                self.close()  # the model may have another rule
                raise

    @property
    def uses(self) -> Uses:
        held = super().uses
        if not self.waves:
            return held
        work = replace(held, waves=self.waves, extra_forwards=held.extra_forwards + self.waves)
        if self.between is None:
            return replace(work, forward_weights="all")
        between = self.between.uses
        weights = held.forward_weights if between.forward_weights == "none" else between.forward_weights
        return replace(work, forward_weights=weights, state=between.state)

    def _make_recorder(self, points: Points, error_at: Patterns) -> Recorder:
        self._linking = LinkingRecorder(self, self.name, self.warn_once if self.waves else None)
        return self._linking

    def signals(self, error_name: str, error: Tensor, points: Sequence[Point]) -> Iterator[Tensor]:
        signals = list(super().signals(error_name, error, points))
        if self.between is not None:
            exchange_between(points, self.between.exchange)
        for _ in range(min(self.waves, len(points))):  # more change nothing
            with nullcontext() if self.between is None else self.between.sending():
                received = send_down(points, signals, error)
            signals, _ = self.improved(error, points, signals, received)
        return iter(signals)

    def improved(
        self,
        error: Tensor,
        points: Sequence[Point],
        signals: Sequence[Tensor],
        received: Sequence[Tensor],
        change: Tensor | None = None,
    ) -> tuple[list[Tensor], Tensor | None]:
        """Add to what each point received the change of the signal above it, along the path.

        Args:
            error: the error.
            points: that signals arrive at.
            signals: of the points, before this wave.
            received: by each point from the part above it.
            change: of what comes down the path from above these points; None: nothing, as the error does not change.

        Returns:
            the signals after the wave, and the change that goes on below the points.
        """
        improved: list[Tensor] = []
        for point, before, arriving in zip(*map(reversed, (points, signals, received)), strict=True):
            change = None if change is None else self.below_norms(change, point)
            after = arriving
            if point.activation.shape == error.shape:
                after = arriving if change is None else arriving + change.to(arriving.dtype)
                change = self.damping * (after - before).to(error.dtype)
            improved.append(after)
        return improved[::-1], change

    def backward(self, loss: Tensor) -> None:
        check_differentiable(loss)
        scaled = may_be_scaled(loss)
        if past := self._linking.reached_from(loss):
            self.warn_once(
                f"the loss depends on the output of feedback point '{past[0].name}' past the error tensor, and no"
                " gradient crosses a point: below it, this term trains nothing"
            )
        super().backward(loss)
        if self.between is not None:
            self.between.end_batch(scaled)

    def close(self) -> None:
        if self.between is not None:
            self.between.close()
        super().close()

    def state_dict(self) -> dict[str, Any]:
        between = {} if self.between is None else self.between.state_dict()
        return {"matrices": super().state_dict(), "between": between}

    def check_state_dict(self, state: dict[str, Any]) -> None:
        check_entries(self.name, state, ["matrices", "between"])
        super().check_state_dict(state["matrices"])
        if self.between is None:
            check_entries(self.name, state["between"], [])
        else:
            self.between.check_state_dict(state["between"])

    def _take_up(self, state: dict[str, Any]) -> None:
        super()._take_up(state["matrices"])
        if self.between is not None:
            self.between.load_state_dict(state["between"])


def _weights_between_blocks(
    model: nn.Module, hooks: FeedbackHooks, feedback: Feedback, decay: float, every: int, seed: int
) -> BetweenBlocks | None:
    """Make what takes the place of the model's weights between blocks; None where they themselves do."""
    if feedback == "transport":
        return None
    if feedback == "sign":
        return SignsBetweenBlocks(model, hooks, seed=seed)
    if feedback == "kolen_pollack":
        return LearnedBetweenBlocks(model, hooks, decay=decay, seed=seed)
    if feedback == "fitted":
        return FittedBetweenBlocks(model, hooks, every)
    return LearnedFromZeroBetweenBlocks(model, hooks)
