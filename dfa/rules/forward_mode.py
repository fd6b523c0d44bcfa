"""The frame for rules that learn their feedback by forward-mode differentiation of the training pass."""

from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from typing import Any

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle
from typing_extensions import Unpack

from dfa.base.agreement import agree
from dfa.base.rule import Patterns, Points, Uses
from dfa.compiling import enter_uncompiled
from dfa.errors import PointError, first_line
from dfa.feedback.states import check_counter
from dfa.hooks.guarded_calls import GuardedCalls, innermost_module
from dfa.hooks.points import ForwardRecord, Mode, Point, Recorder
from dfa.patterns import inner_model
from dfa.rules.learned import LearnedFeedback, LearnedOptions
from dfa.values import check_count


class ForwardModeOptions(LearnedOptions, total=False):
    """Options of `ForwardModeFeedback`."""

    every: int


class ForwardModeFeedback(LearnedFeedback):
    """Learns from s = Σ_l J_l p_l, with J_l = ∂(error tensor)/∂h_l and a Gaussian perturbation p_l of point l.

    Forward-mode differentiation carries s along with the training pass itself, for about one more forward pass; nothing
    goes backwards. Since the p are independent, the mean of s p_lᵀ over rows is an estimate of the mean of J_l: the
    part of the error tensor that belongs to a point's own row. `update` says how a rule uses it.

    The p come from the global generator, so that a run that saves its state resumes alike.

    Args:
        model, points, error_at, silent, codec, around_identity: see `LearnedFeedback`. With `around_identity` the
            identity is subtracted from the estimate.
        every: perturb the points in every n-th forward pass.
        distribution, normalise, scale, batch_dims, seed: of the matrices at the start, see `FeedbackMatrices`.

    Raises:
        FeedbackError: `every` below 1.
        PointError: in a forward pass, inside torch.compile, which knows no forward-mode differentiation.
    """

    def __init__(
        self,
        model: nn.Module,
        points: Points = (),
        error_at: Patterns = "",
        silent: Patterns = (),
        *,
        every: int = 1,
        **options: Unpack[LearnedOptions],
    ) -> None:
        check_count("every", every)
        self.every = every
        self._recorder = PerturbingRecorder(self)
        super().__init__(model, points, error_at, silent, **options)
        self.hooks.lone_points.refuse(f"rule '{self.name}'")

    @property
    def uses(self) -> Uses:
        return replace(super().uses, extra_forwards=1 / self.every)

    def _make_recorder(self, points: Points, error_at: Patterns) -> Recorder:
        return self._recorder

    @abstractmethod
    def update(self, matrix: Tensor, estimate: Tensor) -> None:
        """Update a matrix in place, given the mean of s pᵀ over rows, in its shape."""

    def backward(self, loss: Tensor) -> None:
        try:
            super().backward(loss)
        except RuntimeError as error:
            if type(error).__name__ != "CheckpointError":
                raise
            raise PointError(
                f"rule '{self.name}' does not go with activation checkpointing above its points, where the forward pass"
                " carries more than its repetition: leave it out"
            ) from error

    def learn(self, error_name: str, error: Tensor, points: Sequence[Point]) -> None:
        """Learn nothing from the error: `observe` has learned from the forward pass."""

    @torch.no_grad()
    def observe(
        self, error_name: str, response: Tensor, points: Sequence[Point], perturbations: Sequence[Tensor]
    ) -> None:
        """Update the matrices from the response s of the error tensor to the perturbations p of the points.

        Args:
            error_name: module whose output is the error tensor ("" for the model).
            response: s, in the error tensor's shape.
            points: the points of one forward pass.
            perturbations: p of each point, in its activation's shape.
        """
        if not points:  # all belong to error tensors that came before
            return
        matrices = self.feedback.matrices(error_name, response, points)
        estimates = {name: torch.zeros_like(matrix) for name, matrix in matrices.items()}
        rows = response.numel() / next(iter(matrices.values())).shape[0]
        outputs = Counter(point.name for point in points)
        for point, perturbation in zip(points, perturbations, strict=True):
            estimate = self.feedback.outer(response, perturbation, point.name) / rows
            if self.around_identity and perturbation.shape == response.shape:
                estimate.diagonal().sub_(1)
            estimates[point.name] += estimate / outputs[point.name]
        if agree(list(estimates.values()), self.model, self.name):
            for name, matrix in matrices.items():
                self.update(matrix, estimates[name])

    def _learning_state(self) -> dict[str, Any]:
        return {"forwards": torch.tensor(self._recorder.forwards)}

    def _check_learning_state(self, state: dict[str, Any]) -> None:
        check_counter("forwards", state["forwards"])

    def _load_learning_state(self, state: dict[str, Any]) -> None:
        self._recorder.forwards = int(state["forwards"])


class _NoTangentsWithoutGrad(TorchFunctionMode):
    """Leaves tangents out of what runs under `torch.no_grad()`, as the backward pass leaves it out."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        with nullcontext() if torch.is_grad_enabled() else forward_ad._set_fwd_grad_enabled(False):
            return func(*args, **(kwargs or {}))


class PerturbingRecorder(Recorder):
    """Adds a random tangent to the output of each point, and hands the error tensor's to the rule.

    Attributes:
        forwards: training passes so far.
    """

    def __init__(self, rule: ForwardModeFeedback) -> None:
        super().__init__(rule)
        self._rule = rule
        self._dual_level = ExitStack()
        self._perturbing = self._perturbed = self._under_way = False
        self._perturbations: dict[int, Tensor] = {}  # by the identity of their point
        self.forwards = 0

    def attach(self, model: nn.Module, mode: Callable[[], Mode]) -> list[RemovableHandle]:
        self._model = model
        guard: Any = GuardedCalls(model, self._translate)
        return [guard]

    def start(self) -> None:
        if self._under_way:  # forward mode does not nest
            raise PointError(
                f"rule '{self._rule.name}' does not go with a model that calls itself in its forward pass: do so under"
                " torch.no_grad()"
            )
        self._under_way = True
        self._perturbing = self._perturbed = self.forwards % self._rule.every == 0
        self.forwards += 1
        if self._perturbing:
            enter_uncompiled(self._dual_level, self._rule.name)
            self._dual_level.enter_context(forward_ad.dual_level())
            self._dual_level.enter_context(_NoTangentsWithoutGrad())
            self._dual_level.enter_context(sdpa_kernel(SDPBackend.MATH))  # the only one with a forward mode

    def reset(self) -> None:
        self._dual_level.close()
        self._perturbing, self._under_way, self._perturbations = False, False, {}

    def _translate(self, error: Exception, call: Callable[[], Any]) -> PointError | None:
        """Tell an error of forward mode, of which torch has many, from one of the model's own."""
        if not (self._perturbed and isinstance(error, RuntimeError)):
            return None
        try:
            with self._rule.paused(), torch.no_grad():
                call()
        except Exception:
            return None
        module = innermost_module(inner_model(self._model), error.__traceback__)
        reason = first_line(error).rstrip(".")
        return PointError(
            f"rule '{self._rule.name}' needs forward-mode derivatives, which module {module} lacks, at least in this"
            f" precision and on this device ({reason}): take a rule without, such as 'dkp'"
        )

    def at_point(self, name: str, activation: Tensor) -> tuple[Point, Tensor]:
        self._rule.check_real([activation])
        if not self._perturbing:
            return super().at_point(name, activation)
        primal, tangent = forward_ad.unpack_dual(activation)
        perturbation = torch.randn_like(primal, requires_grad=False)
        point = Point(name, primal)
        self._perturbations[id(point)] = perturbation
        if tangent is not None:  # which some modules return in another precision than the primal
            perturbation = perturbation + tangent.detach().to(perturbation.dtype)
        return point, forward_ad.make_dual(primal.detach(), perturbation)

    def at_error(self, name: str, tensor: Tensor, points: list[Point]) -> tuple[ForwardRecord, Tensor]:
        if self._perturbing:
            tensor, response = forward_ad.unpack_dual(tensor)
            if response is None and points:
                raise PointError(
                    f"rule '{self._rule.name}' learns from how error tensor '{name or 'model output'}' responds to its"
                    " points, but nothing of them arrives there: something between detaches it"
                )
            perturbations = [self._perturbations.pop(id(point)) for point in points]
            if response is not None:
                self._rule.observe(name, response.detach(), points, perturbations)
        return super().at_error(name, tensor, points)
