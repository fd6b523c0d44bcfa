"""Points that know the part of the graph above them, so that signals can be sent from point to point."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from dfa.compiling import enter_uncompiled
from dfa.hooks.graphs import nodes_below
from dfa.hooks.points import ForwardRecord, Point, Recorder, SignalSource


@dataclass
class LinkedPoint(Point):
    """A point between two parts of a graph: `activation` ends the part below it.

    Attributes:
        above: a copy of the activation that the part above begins with; a leaf where the graph is cut.
        error: the error tensor of the forward pass.
    """

    above: Tensor = field(default_factory=lambda: torch.empty(0))
    error: Tensor = field(default_factory=lambda: torch.empty(0))


class LinkingRecorder(Recorder):
    """Records linked points; the graph is cut at them in training passes, and whole in observed ones.

    Training passes run uncompiled: a compiled graph cannot be gone through more than once.

    Args:
        source: the rule.
        name: of the rule, for messages.
        warn: called with what waves cannot do in this model; None where there are no waves.
    """

    def __init__(self, source: SignalSource, name: str, warn: Callable[[str], None] | None) -> None:
        super().__init__(source)
        self._name, self._warn = name, warn
        self._uncompiled = ExitStack()
        self._above: WeakValueDictionary[int, LinkedPoint] = WeakValueDictionary()

    def start(self) -> None:
        enter_uncompiled(self._uncompiled, self._name)

    def reset(self) -> None:
        self._uncompiled.close()

    def at_point(self, name: str, activation: Tensor) -> tuple[Point, Tensor]:
        return self._linked(name, activation, activation.detach().requires_grad_())

    def at_point_of_part(self, name: str, activation: Tensor) -> tuple[Point, Tensor]:
        return self.at_point(name, activation)

    def observe_point(self, name: str, activation: Tensor) -> tuple[Point, Tensor]:
        return self._linked(name, activation, activation.clone())

    def at_error(self, name: str, tensor: Tensor, points: list[Point]) -> tuple[ForwardRecord, Tensor]:
        _link_to_error(points, tensor)
        if self._warn is not None and len(self._above) > len(points):
            reached = self.reached_from(tensor, *(point.activation for point in points))
            own = {id(point.above) for point in linked_points(points)}  # those of parts called alone are copies
            others = [other for other in reached if id(other.above) not in own]
            if others:
                self._warn(
                    f"feedback point '{others[0].name}' acts on error tensor '{name or 'model output'}', too, which is"
                    " not the one that it belongs to: no wave takes that error to it"
                )
        return super().at_error(name, tensor, points)

    def reached_from(self, *tensors: Tensor) -> list[LinkedPoint]:
        """List the points that tensors were computed from past all error tensors, and without a point in between."""
        nodes = nodes_below([tensor.grad_fn for tensor in tensors], until="_BroadcastErrorBackward")
        found = (self._above.get(id(getattr(node, "variable", None))) for node in nodes)
        return [point for point in found if point is not None]

    def observe_error(self, name: str, tensor: Tensor, points: list[Point]) -> ForwardRecord:
        _link_to_error(points, tensor)
        return super().observe_error(name, tensor, points)

    def _linked(self, name: str, activation: Tensor, above: Tensor) -> tuple[Point, Tensor]:
        point = LinkedPoint(name, activation, above=above)
        self._above[id(above)] = point
        return point, above.clone()  # which may be written to further up


def _link_to_error(points: Sequence[Point], error: Tensor) -> None:
    for point in points:
        assert isinstance(point, LinkedPoint)
        point.error = error


def exchange_between(points: Sequence[Point], exchange: Callable[[Sequence[Tensor], Sequence[Tensor]], object]) -> None:
    """Exchange weights in the graphs of all parts between points, given how it is done between outputs and inputs."""
    linked = [point for point in points if isinstance(point, LinkedPoint)]
    if linked:
        exchange([*(point.activation for point in linked), linked[0].error], [point.above for point in linked])


def send_down(points: Sequence[Point], signals: Sequence[Tensor], error: Tensor) -> list[Tensor]:
    """Send the signals of all points, and the error, down to their nearest points, all at the same time.

    Point l receives Σ_j (∂h_j/∂h_l)ᵀ s_j + (∂y/∂h_l)ᵀ e, with y the error tensor and derivatives along the paths that
    no other point lies on: a vector-Jacobian product of every part of the graph between points, in one call. No part
    waits for another. The graph is kept.

    Args:
        points: linked points of one forward pass.
        signals: s_j of each point, in its activation's shape.
        error: e.

    Returns:
        what each point receives, in its activation's shape.
    """
    linked = linked_points(points)
    if not linked:
        return []
    with _nothing_passes(linked, signals):
        _, received = send_between(linked, signals, (linked[0].error, error))
    return received


def send_between(
    points: Sequence[LinkedPoint],
    signals: Sequence[Tensor],
    end: tuple[Tensor, Tensor] | None,
    entry: Tensor | None = None,
) -> tuple[Tensor | None, list[Tensor]]:
    """Send signals down through the parts of a graph, or of one stage of it, in one call; see `send_down`.

    Args:
        points: of the graph or stage, in the order they ran in.
        signals: of each.
        end: the tensor that the graph ends in, and its error; None where the stage above sends to the topmost point.
        entry: what the stage was given, a leaf; None where nothing is sent below it.

    Returns:
        what arrives at the entry, and at each point, without the topmost one where `end` is None.
    """
    inputs = [point.above for point in (points if end is not None else points[:-1])]
    inputs = inputs if entry is None else [entry, *inputs]
    sent = [*zip((point.activation for point in points), signals, strict=True), *([] if end is None else [end])]
    sent = [(tensor, signal) for tensor, signal in sent if tensor.requires_grad]  # not where all below is frozen
    if sent and inputs:
        outputs, numbers = zip(*sent, strict=True)
        found = torch.autograd.grad(outputs, inputs, numbers, retain_graph=True, materialize_grads=True)
    else:
        found = tuple(torch.zeros_like(tensor) for tensor in inputs)
    return (None, list(found)) if entry is None else (found[0], list(found[1:]))


def linked_points(points: Sequence[Point]) -> list[LinkedPoint]:
    """Return points as the linked ones that a `LinkingRecorder` has made."""
    linked = [point for point in points if isinstance(point, LinkedPoint)]
    assert len(linked) == len(points), "the points were not recorded by a LinkingRecorder"
    return linked


@contextmanager
def _nothing_passes(points: Sequence[LinkedPoint], signals: Sequence[Tensor]) -> Iterator[None]:
    """Let each point send its signal alone, whatever arrives there; where the graph is cut, nothing could pass."""
    whole = [(point, signal) for point, signal in zip(points, signals, strict=True) if not point.above.is_leaf]
    handles = [point.activation.register_hook(lambda _, signal=signal: signal) for point, signal in whole]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
