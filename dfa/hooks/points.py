"""Records of forward passes at feedback points and error tensors, and the way of an error from one to the other."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from dfa.errors import FeedbackError, PointError
from dfa.hooks.norms import PassedNorm

Mode = Literal["cut", "observe", "describe", "recompute", "off"]
"""What hooks do with a forward pass, see `dfa.hooks.model.FeedbackHooks`."""


SECOND_BACKWARD = "the error of this forward pass has been sent already: it cannot go backward a second time"
DERIVATIVE = (
    "create_graph=True: a rule's signals are no derivative to be derived again; make the forward pass of a gradient"
    " penalty, or of another loss that holds a derivative, in rule.paused()"
)
_BEFORE_2_14 = tuple(map(int, torch.__version__.split(".")[:2])) < (2, 14)


@dataclass
class Point:
    """One output of a feedback point.

    Attributes:
        name: of the module.
        activation: its output, still on the graph of the layers below.
        norms: the normalisations that ran between this point and the next, where a rule asks for them.
        entry: what the part of the graph above begins with, in a pass that tries which rows belong together.
    """

    name: str
    activation: Tensor
    norms: list[PassedNorm] = field(default_factory=list)
    entry: Tensor | None = None


@dataclass
class ForwardRecord:
    """One forward pass, from its first feedback point to its error tensor.

    Attributes:
        error_name: module whose output is the error tensor ("" for the model).
        points: outputs of the feedback points, in order of execution; empty where the pass was compiled.
        error: the error tensor, in modes "observe" and "describe" only.
        error_received: whether a backward pass has reached the error tensor.
        arrival: called when the error arrives; returns whether a rule's backward is under way.
    """

    error_name: str
    points: list[Point] = field(default_factory=list)
    error: Tensor | None = None
    error_received: bool = False
    arrival: Callable[[], bool] = lambda: True


class SignalSource(Protocol):
    """A rule, as far as the hooks know it."""

    def training_signals(self, error_name: str, error: Tensor, points: Sequence[Point]) -> Iterable[Tensor]:
        """Compute the signal of each point, in the shape of its activation; may also update the feedback."""
        ...

    def prepare(self, error_name: str, error: Tensor, points: Sequence[Point]) -> None:
        """Allocate what `training_signals` will need; of `error` only the shape and device are read."""


def one_for_each(points: Sequence[Point], signals: Iterable[Tensor]) -> Iterator[Tensor]:
    """Hand on the signals of points, one at a time.

    Raises:
        FeedbackError: one has not the shape of its point's activation, or there is not one for each point.
    """
    if not isinstance(signals, Iterable):
        raise FeedbackError(f"signals() must give a tensor for each feedback point, got a {type(signals).__name__}")
    for point, signal in zip_longest(points, signals):
        if point is None:
            raise FeedbackError(f"signals() gave more signals than the {len(points)} feedback points take")
        if not isinstance(signal, Tensor):
            raise FeedbackError(f"signals() gave no tensor for feedback point '{point.name}'")
        if signal.shape != point.activation.shape:
            shape, own = tuple(signal.shape), tuple(point.activation.shape)
            raise FeedbackError(f"signals() gave shape {shape} for feedback point '{point.name}', whose shape is {own}")
        yield signal


class _BroadcastError(torch.autograd.Function):
    """The identity on the error tensor, whose backward passes the error on and sends signals to the points.

    Since the points' activations are inputs of this node, one backward call trains the layers above and below. The node
    is what keeps the record of a pass alive: both go with the graph.
    """

    @staticmethod
    def forward(
        ctx: Any, source: SignalSource, record: ForwardRecord, points: list[Point], output: Tensor, *activations: Tensor
    ) -> Tensor:
        ctx.sending = source, record, points
        ctx.sends_errors = True
        return output.detach()  # a view could not be written to

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:
        (error,) = grad_outputs
        if ctx.sending is None:
            raise PointError(SECOND_BACKWARD)
        source, record, points = ctx.sending
        if not torch.compiler.is_compiling():
            if torch.is_grad_enabled():
                raise PointError(DERIVATIVE)
            record.arrival()
        signals = source.training_signals(record.error_name, error, points) if points else ()
        if torch.compiler.is_compiling():
            signals = tuple(signals)
        else:
            signals = tuple(one_for_each(points, signals))
            record.error_received = True
            ctx.sending = None  # otherwise the activations would live as long as the loss
        return None, None, None, error, *signals


def sends_errors(node: Any) -> bool:
    """Whether a node of the graph is at an error tensor, and sends the error to points when it arrives."""
    return getattr(node, "sends_errors", False)


def _group_norm_crashes(tensor: Tensor) -> bool:
    """Whether a GroupNorm of this tensor would end the process if it had no gradient, as before PyTorch 2.14."""
    if not _BEFORE_2_14 or torch.compiler.is_compiling() or tensor.ndim != 4 or tensor.device.type != "cpu":
        return False
    return tensor.is_contiguous(memory_format=torch.channels_last) and not tensor.is_contiguous()


class Recorder:
    """Records the points of training passes, and replaces their outputs in the model.

    This one keeps activations on their graph, hands on detached tensors, and puts a node at the error tensor that sends
    the error to the points. `FeedbackHooks` calls it in mode "cut"; other ways to train replace its methods.

    Args:
        source: the rule; None for a rule without error tensors.
        copy: whether points hand on copies, so that the activations recorded survive operations in place.
    """

    def __init__(self, source: SignalSource | None = None, copy: bool = False) -> None:
        self._source = source
        self._copy = copy

    def attach(self, model: nn.Module, mode: Callable[[], Mode]) -> list[RemovableHandle]:
        """Register hooks beyond those of `FeedbackHooks`, to run after them; `mode` tells the current mode."""
        return []

    def replaced_by(self, other: "Recorder") -> "Recorder":
        """Return the recorder to go on with where another one, without hooks of its own, takes this one's place."""
        return other

    def needs_gradients(self) -> bool:
        """Whether a module that runs now is part of a training pass."""
        return torch.is_grad_enabled()

    def start(self) -> None:
        """Begin a training pass, perhaps within another.

        Raises:
            PointError: what is recorded of the other would be lost.
        """

    def reset(self) -> None:
        """End the outermost training pass, also one that has failed, or clear what an interrupted one has left."""

    def check_alone(self, name: str) -> None:
        """Check that a point may run outside of any call of the model.

        Raises:
            PointError: it may not.
        """

    def at_point(self, name: str, activation: Tensor) -> tuple[Point, Tensor]:
        """Return what is recorded of a point's output, and the tensor that takes its place in the model."""
        handed_on = activation.detach()
        if _group_norm_crashes(handed_on):
            return Point(name, activation), handed_on.requires_grad_().clone()
        return Point(name, activation), handed_on.clone() if self._copy else handed_on

    def below(self, point: Point) -> Sequence[Tensor]:
        """Return tensors that the last point was computed from, with their graph."""
        return [point.activation]

    def learns_from(self, tensor: Tensor) -> bool:
        """Whether a tensor, computed on the way to a point, depends on what learns, as far as it is known."""
        return tensor.requires_grad

    def at_point_of_part(self, name: str, activation: Tensor) -> tuple[Point, Tensor]:
        """Do as `at_point` where a part of the model runs by itself."""
        return Point(name, activation), activation.detach()

    def observe_point(self, name: str, activation: Tensor) -> tuple[Point, Tensor]:
        """Do as `at_point` where nothing is cut."""
        # A copy goes on, lest an operation in place further up changes what is observed.
        return Point(name, activation), activation.clone()

    def observe_error(self, name: str, tensor: Tensor, points: list[Point]) -> ForwardRecord:
        """Return the record of a pass in which nothing was cut."""
        return ForwardRecord(name, points, tensor)

    def at_error(self, name: str, tensor: Tensor, points: list[Point]) -> tuple[ForwardRecord, Tensor]:
        """Return the record of the pass that an error tensor ends, and the tensor that takes its place in the model."""
        assert self._source is not None
        compiled = torch.compiler.is_compiling()
        if compiled:
            self._source.prepare(name, tensor, points)
        record = ForwardRecord(name, [] if compiled else points)
        activations = (point.activation for point in points)
        passed_on: Tensor = _BroadcastError.apply(self._source, record, points, tensor, *activations)
        return record, passed_on
