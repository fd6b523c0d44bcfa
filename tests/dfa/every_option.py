"""Every rule made with every option it documents, and rules of the user's own, for type checkers to accept."""

from collections.abc import Iterator, Sequence

from torch import Tensor, nn
from typing_extensions import Unpack

import dfa
from dfa.hooks.points import Point
from dfa.rules.dfa import DirectOptions
from dfa.rules.forward_mode import ForwardModeOptions


@dfa.RULES.register("every_option_negated")
class NegatedFeedback(dfa.DirectFeedbackAlignment):
    """A user's rule with one option beside those of its base."""

    name = "every_option_negated"

    def __init__(
        self,
        model: nn.Module,
        points: str | Sequence[str] = (),
        error_at: str | Sequence[str] = "",
        silent: str | Sequence[str] = (),
        *,
        factor: float = -1.0,
        **options: Unpack[DirectOptions],
    ) -> None:
        super().__init__(model, points, error_at, silent, **options)
        self.factor = factor

    def signals(self, error_name: str, error: Tensor, points: Sequence[Point]) -> Iterator[Tensor]:
        for signal in super().signals(error_name, error, points):
            yield self.factor * signal


@dfa.RULES.register("every_option_adopted")
class AdoptedJacobian(dfa.ForwardModeFeedback):
    """A user's rule on a frame."""

    name = "every_option_adopted"

    def __init__(
        self,
        model: nn.Module,
        points: str | Sequence[str] = (),
        error_at: str | Sequence[str] = "",
        silent: str | Sequence[str] = (),
        **options: Unpack[ForwardModeOptions],
    ) -> None:
        super().__init__(model, points, error_at, silent, **options)

    def update(self, matrix: Tensor, estimate: Tensor) -> None:
        matrix.copy_(estimate)


def make_rules(model: nn.Module) -> Iterator[dfa.Rule]:
    """Make one rule after the other, on six layers of which the first is silent and the third and fifth are points."""
    points, error_at, silent = ["2", "4"], "5", "0"
    yield dfa.Backpropagation(model, points, error_at, silent)
    yield dfa.Shallow(model, points, error_at, silent)
    yield dfa.Window(model, points, error_at, silent, fraction=0.5, layers=1)
    direct = dfa.DirectFeedbackAlignment(
        model,
        points=points,
        error_at=error_at,
        silent=silent,
        distribution="gaussian",
        sharing="per_point",
        normalise=False,
        scale=0.5,
        density=0.5,
        batch_dims=1,
        seed=1,
        draw="counter",
        keep=False,
        memory="recompute",
        segments=["2", "4"],
        parallel=2,
        codec="ternary:0.5",
    )
    direct.after_segment = lambda parameters: None
    matrices: dfa.FeedbackMatrices = direct.feedback
    assert matrices.draw == "counter"
    yield direct
    yield dfa.DirectRandomTargetProjection(
        model, points, error_at, silent, distribution="orthogonal", sharing="shared", normalise=True, scale=2.0,
        density=1.0, batch_dims=None, seed=2, draw="torch", keep=True, memory="keep", segments=None, parallel=1,
        codec="sign",
    )  # fmt: skip
    yield dfa.IdentityFeedback(
        model, points, error_at, silent, damping=0.9, norms=(), otherwise="zero", distribution="uniform",
        sharing="shared", normalise=True, scale=1.0, density=0.1, batch_dims=1, seed=0, draw="torch", keep=True,
        memory="recompute", segments="[24]", parallel=1, codec="bits:4",
    )  # fmt: skip
    yield dfa.DirectKolenPollack(
        model, points, error_at, silent, lr=0.1, decay=0.0, optimizer="sgd", around_identity=True,
        distribution="gaussian", normalise=True, scale=0.0, batch_dims=1, seed=3, codec="noise:0.1",
    )  # fmt: skip
    yield dfa.LowRankFeedback(
        model, points, error_at, silent, rank=2, lr=0.5, around_identity=False, distribution="uniform",
        normalise=True, scale=1.0, batch_dims=None, seed=0, codec=None,
    )  # fmt: skip
    yield dfa.ForwardDirectFeedback(
        model, points, error_at, silent, beta=0.1, every=2, around_identity=True, distribution="uniform",
        normalise=True, scale=0.0, batch_dims=None, seed=0, codec=None,
    )  # fmt: skip
    yield dfa.GradientAlignedFeedback(
        model, points, error_at, silent, lr=0.1, every=2, around_identity=False, distribution="uniform",
        normalise=True, scale=1.0, batch_dims=None, seed=0, codec=None,
    )  # fmt: skip
    yield dfa.Highway(
        model, points, error_at, silent, waves=2, feedback="kolen_pollack", decay=0.01, damping=0.9, norms=(),
        otherwise="zero", distribution="uniform", sharing="shared", normalise=True, scale=1.0, density=0.1,
        batch_dims=1, seed=0, draw="torch", keep=True, codec="bits:4",
    )  # fmt: skip
    yield dfa.Highway(model, points, error_at, silent, feedback="fitted", every=3)
    yield dfa.FeedbackAlignment(model, points, error_at, silent, weights=["0.*", "3.*"], seed=4)
    yield dfa.SignSymmetry(model, points, error_at, silent, weights="**", magnitude="fixed_random", seed=5)
    yield dfa.KolenPollack(model, points, error_at, silent, weights="**", decay=0.01, seed=6)
    yield dfa.Calibrated(
        model, points, error_at, silent, rule="dfa", every=4, options={"distribution": "gaussian"}, seed=7
    )
    yield NegatedFeedback(model, points, error_at, silent, factor=-2.0, seed=8, codec="sign")
    yield AdoptedJacobian(model, points, error_at, silent, every=3, scale=0.0)
