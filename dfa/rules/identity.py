"""The error itself as signal: feedback along the residual path, without any matrix."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import takewhile
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from dfa.base.rule import RULES, ForwardWeights, Patterns, Points, State, Uses
from dfa.errors import FeedbackError, PointError
from dfa.hooks.cuts import Cuts
from dfa.hooks.norms import PassedNorm
from dfa.hooks.placing import Hook
from dfa.hooks.points import ForwardRecord, Point
from dfa.hooks.targets import find_targets
from dfa.patterns import find_modules, pattern_list
from dfa.precision import at_least_single
from dfa.rules.dfa import DirectFeedbackAlignment, DirectOptions
from dfa.values import check_choice, check_number

Otherwise = Literal["dfa", "zero"]


@RULES.register("identity")
class IdentityFeedback(DirectFeedbackAlignment):
    """Identity feedback, B_l = I: points with the error's shape get the error as it is.

    In a residual network h_{l+1} = h_l + f(h_l), backpropagation's signal is e Π (I + ∂f/∂h): it holds e itself, by way
    of the residual path alone, and this is what is sent. It is the first term, k = 0, of Highway-BP (Fagnou et al.,
    *Accelerated Training through Iterative Gradient Propagation Along the Residual Path*, 2025). No weight is
    transported, and no point waits for another.

    Where the residual sum is normalised, h_{l+1} = LayerNorm(u) with u = h_l + f(h_l), the path has the Jacobian

        N = ∂h_{l+1}/∂u = diag(α) (I - 1 1ᵀ/d - û ûᵀ/d) / σ,

    û being the normalised u, σ the deviation of u over its d features (one a row) and α the gains. `norms` names such
    normalisations, and the signal of a point, as a column, is then

        s_l = δ^k Π_n N_nᵀ e,    n over the normalisations that ran after point l, the lowest leftmost,

    where k counts the points of the error's shape from this one up to the error (0 for the topmost) and δ is `damping`,
    which stands for what f turns away: 1 - γ of every step. (Highway-BP takes the diagonal of N alone, diag(α)/σ. What
    that leaves out adds up from block to block.)

    Args:
        model, points, error_at, silent, memory, segments, parallel, codec: see `DirectRule`.
        damping: factor per step towards the input, from 0 to 1.
        norms: name patterns of the LayerNorms that lie on the residual path; other modules that match must be
            `nn.Identity`, which stands for none. What they normalise is kept until the error arrives, also with
            memory="recompute".
        otherwise: what points of another shape receive: "dfa", the error times a random matrix, or "zero", nothing.
        Others: of the random matrices, see `FeedbackMatrices`.

    Raises:
        PointError: a pattern of `norms` that matches nothing, or a module of another kind; in a forward pass, a norm
            that runs while points of another network wait for its error.
        FeedbackError: an unknown `otherwise`, or a damping out of range.
    """

    name = "identity"

    def __init__(
        self,
        model: nn.Module,
        points: Points = (),
        error_at: Patterns = "",
        silent: Patterns = (),
        *,
        damping: float = 1.0,
        norms: Patterns = (),
        otherwise: Otherwise = "dfa",
        **options: Unpack[DirectOptions],
    ) -> None:
        check_choice("otherwise", otherwise, get_args(Otherwise))
        check_number("damping", damping, 0, 1)
        on_path = find_modules(model, pattern_list(norms, "norms"))
        for name, module in on_path.items():
            # A subclass may compute something else, as with gains 1 + α.
            if type(module).forward not in (nn.LayerNorm.forward, nn.Identity.forward):
                raise PointError(f"norms: '{name}' is a {type(module).__name__}, not a LayerNorm")
        super().__init__(model, points, error_at, silent, **options)
        self.damping = damping
        self.otherwise = otherwise
        # Before the hooks of a point on the same module: the norm belongs to the point below it.
        self._norm_handles = [
            module.register_forward_hook(Hook(partial(self._keep_norm, name)), prepend=True, with_kwargs=True)
            for name, module in on_path.items()
            if isinstance(module, nn.LayerNorm)
        ]
        norms_that_run = {name: module for name, module in on_path.items() if isinstance(module, nn.LayerNorm)}
        self._norms = Cuts(model, norms_that_run, {}, kind="normalisation(s) on the path", done="normalised")
        self._targets = find_targets(model, points)
        if self._norm_handles:
            self.hooks.lone_points.refuse("norms")

    @property
    def on_norms(self) -> bool:
        """Whether signals depend on normalisations on the path."""
        return bool(self._norm_handles)

    @property
    def uses(self) -> Uses:
        held: State = "fixed feedback" if self.feedback.shapes else "none"
        weights: ForwardWeights = "gains" if self._norm_handles else "none"
        return Uses(forward_weights=weights, extra_forwards=super().uses.extra_forwards, state=held)

    def signals(self, error_name: str, error: Tensor, points: Sequence[Point]) -> Iterator[Tensor]:
        self.feedback.order.check(error.shape, points)
        others = [point for point in points if point.activation.shape != error.shape]
        if len(others) == len(points) and self.otherwise == "dfa" and not torch.compiler.is_compiling():
            self.warn_once(
                f"no point has the shape of the error at '{error_name or 'model output'}', so that all receive it"
                " through random matrices, as under 'dfa'"
            )
        random: Iterable[Tensor] = (error.new_zeros(point.activation.shape) for point in others)
        if self.otherwise == "dfa":
            random = super().signals(error_name, error, others)
        straight, random = iter(self._straight(error, points)), iter(random)
        for point in points:
            yield next(straight) if point.activation.shape == error.shape else next(random)

    def recorded_passes(self, loss: Tensor) -> list[ForwardRecord]:
        self._norms.check()
        return super().recorded_passes(loss)

    def prepare(self, error_name: str, error: Tensor, points: Sequence[Point]) -> None:
        if self.otherwise == "dfa":
            super().prepare(error_name, error, [point for point in points if point.activation.shape != error.shape])

    def close(self) -> None:
        for hook in self._norm_handles:
            hook.remove()
        super().close()

    def _straight(self, error: Tensor, points: Sequence[Point]) -> list[Tensor]:
        """Compute the signals of the points that have the error's shape, in their order."""
        signals: list[Tensor] = []
        passing = error
        for point in reversed(points):
            passing = self.below_norms(passing, point)
            if point.activation.shape == error.shape:
                signals.append(passing.to(point.activation.dtype))
                passing = passing if self.damping == 1 else passing * self.damping
        return signals[::-1]

    @staticmethod
    def below_norms(signal: Tensor, point: Point) -> Tensor:
        """Send a signal of the error's shape down through the normalisations that ran after a point.

        Raises:
            FeedbackError: one is not as wide as the error.
        """
        for norm in reversed(point.norms):
            if norm.normalised.shape != signal.shape or norm.gains.shape != signal.shape[-1:]:
                raise FeedbackError(f"norms: the one after point '{point.name}' is not as wide as the error")
            signal = norm.send_down(signal)
        return signal

    def _keep_norm(
        self, name: str, module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any], output: Any
    ) -> None:
        if not self.hooks.is_training_pass():
            return
        self._norms.note(name)
        pending = self.hooks.pending_points()
        if not pending:
            return
        self._check_path(name, pending)
        assert isinstance(module, nn.LayerNorm)
        total = at_least_single((arguments[0] if arguments else named["input"]).detach())
        variance, mean = torch.var_mean(total, -1, correction=0, keepdim=True)
        inverse = torch.rsqrt(variance + module.eps)
        gains = torch.ones(module.normalized_shape, device=total.device) if module.weight is None else module.weight
        pending[-1].norms.append(PassedNorm((total - mean) * inverse, inverse, gains.detach()))

    def _check_path(self, norm: str, pending: Sequence[Point]) -> None:
        """Check that a normalisation lies above the last point, and not in a network with another error.

        All that tells is names: those of the points of its network have most in common with its own.

        Raises:
            PointError: it may lie elsewhere.
        """
        if not self._targets:
            return
        shared = {point: _parts_in_common(norm, point) for point in self._targets}
        nearest = {self._targets[point] for point, parts in shared.items() if parts == max(shared.values())}
        waiting = {self._targets[point.name] for point in pending}
        if len(waiting) > 1 or not waiting <= nearest:
            raise PointError(
                f"norms: '{norm}' ran while the points of {', '.join(sorted(waiting))} wait for their error, and it is"
                " not known which path it lies on: run one network up to its error tensor and then the next"
            )


def _parts_in_common(name: str, other: str) -> int:
    """Count the parts that two dotted names have in common at their beginning."""
    pairs = zip(name.split("."), other.split("."), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
