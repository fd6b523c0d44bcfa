"""Feedback points: keep what a module puts out, and cut the graph there."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from dfa.errors import PointError
from dfa.patterns import find_modules

Mode = Literal["cut", "observe", "replay", "off"]


@dataclass
class Point:
    """One firing of a feedback point.

    Attributes:
        activation: what the module put out, still on the graph below it.
        slopes: of normalisations that ran between this point and the next, where a rule asks for them: what each row
            was divided by, inverted, (…, 1), and the gains, (width,).
    """

    name: str
    activation: Tensor
    slopes: list[tuple[Tensor, Tensor]] = field(default_factory=list)


@dataclass
class Pass:
    """What one forward pass left behind, from its first feedback point to its error tensor.

    Attributes:
        error_name: module whose output is the error tensor ("" for the model).
        points: the feedback points that fired, in order; none where the pass was compiled, which keeps them to itself.
        error: the error tensor, where it is needed: in mode "observe".
        compiled: whether the error tensor lies inside a compiled graph.
        arrived: whether the error has come.
    """

    error_name: str
    points: list[Point] = field(default_factory=list)
    error: Tensor | None = None
    compiled: bool = False
    arrived: bool = False


class Sender(Protocol):
    """What turns the error into signals: a rule."""

    def send(self, error_name: str, error: Tensor, points: Sequence[Point]) -> Iterable[Tensor]:
        """The error has come: a signal for each point."""

    def prepare(self, error_name: str, error: Tensor, points: Sequence[Point]) -> None:
        """Make what `send` will need; `error` has the error's shape."""


class _Crossing(torch.autograd.Function):
    """The identity on the error tensor; backwards the error goes on as it is, and the signals start at the points.

    So one backward call does all: autograd reaches the points as if they were inputs of the error tensor.
    """

    @staticmethod
    def forward(
        ctx: Any, sender: Sender, record: Pass, points: list[Point], output: Tensor, *activations: Tensor
    ) -> Tensor:
        ctx.sending = sender, record, points
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, error: Tensor) -> Any:
        sender, record, points = ctx.sending
        signals = tuple(sender.send(record.error_name, error, points))
        if not torch.compiler.is_compiling():
            record.arrived = True
            ctx.sending = None  # or the activations would live as long as the loss
        return None, None, None, error, *signals


class Taps:
    """Forward hooks on the feedback points and error tensors of a model.

    In mode "cut" a point hands on a detached copy of its output, so that no gradient crosses it, and from the error
    tensor the error is sent to the points; "replay" cuts at points and leaves error tensors alone; in mode "observe"
    both are recorded and left on the graph; in mode "off", and whenever gradients are disabled, nothing happens.

    Args:
        model: any module; it is not changed, only hooked.
        points: patterns of the feedback points' names.
        error_at: pattern(s) of the modules whose output is an error tensor; "" is the model's own output.
            A point belongs to the next error tensor that fires. None: error tensors are neither cut nor recorded.
        silent: patterns of modules whose output is cut and which receive no signal.
        sender: makes signals of an error; not needed where error tensors are neither cut nor recorded.

    Raises:
        PointError: a pattern matches nothing.
    """

    def __init__(
        self,
        model: nn.Module,
        points: str | Sequence[str],
        error_at: str | Sequence[str] | None,
        silent: str | Sequence[str] = (),
        sender: Sender | None = None,
    ) -> None:
        self.mode: Mode = "cut"
        self._sender = sender
        point_modules = find_modules(model, points)
        silent_modules = find_modules(model, silent)
        error_modules = {} if error_at is None else find_modules(model, error_at)
        # Names only: torch.compile traces the hooks, and must not meet the model it compiles in what they read.
        self.points = list(point_modules)
        self.error_names = list(error_modules)
        self.passes: list[Pass] = []
        self._open: list[Point] = []
        self._fired = dict.fromkeys(self.points, False)
        hooks = [model.register_forward_pre_hook(self._start)]
        hooks += [module.register_forward_hook(self._cut) for module in silent_modules.values()]
        for name, module in point_modules.items():
            hooks.append(module.register_forward_hook(self._point_hook(name)))
        # Registered after the points, so that a module which is both is cut first and becomes the error second.
        for name, module in error_modules.items():
            hooks.append(module.register_forward_hook(self._error_hook(name)))
        hooks.append(model.register_forward_hook(self._finish))
        self._hooks = hooks

    @contextmanager
    def switched(self, mode: Mode) -> Iterator[None]:
        """Run a block in another mode, with its own empty record of passes; the old one is put back after."""
        before = self.mode, self.passes, self._open
        self.mode, self.passes, self._open = mode, [], []
        try:
            yield
        finally:
            self.mode, self.passes, self._open = before

    def open_points(self) -> list[Point]:
        """Points that fired since the last error tensor."""
        return self._open

    def discard(self) -> None:
        """Forget all passes that no backward has used."""
        self.passes, self._open = [], []

    def close(self) -> None:
        """Take the hooks off the model."""
        self.mode = "off"  # a compiled model may keep the hooks it was traced with, but notices the mode
        for hook in self._hooks:
            hook.remove()
        self.discard()

    def check_all_fired(self) -> None:
        """Raise PointError where a point was reached by no forward pass with gradients since the rule was made."""
        if missing := [name for name, fired in self._fired.items() if not fired]:
            raise PointError(f"feedback point(s) never reached by a forward pass: {', '.join(missing)}")

    @property
    def _active(self) -> bool:
        return self.mode != "off" and torch.is_grad_enabled()

    @property
    def _cuts(self) -> bool:
        return self.mode in ("cut", "replay")

    def _keep(self, name: str, activation: Tensor) -> None:
        self._open.append(Point(name, activation))

    def _hand_on(self, activation: Tensor) -> Tensor:
        """What goes on in place of the output of a point."""
        return activation.detach()

    def _cross(self, name: str, tensor: Tensor, points: list[Point]) -> Tensor:
        """What goes on in place of an error tensor."""
        assert self._sender is not None
        compiled = torch.compiler.is_compiling()
        if compiled:
            self._sender.prepare(name, tensor, points)
        record = Pass(name, [] if compiled else points, compiled=compiled)
        self.passes.append(record)
        crossed: Tensor = _Crossing.apply(self._sender, record, points, tensor, *(point.activation for point in points))
        return crossed

    def _start(self, module: nn.Module, arguments: Any) -> None:
        # Points of a forward pass that raised half-way must not end up in the next one.
        self._open = []

    def _finish(self, module: nn.Module, arguments: Any, output: Any) -> None:
        if self._open:
            names = ", ".join(dict.fromkeys(point.name for point in self._open))
            self._open = []
            raise PointError(f"feedback point(s) above the error tensor '{', '.join(self.error_names)}': {names}")

    def _cut(self, module: nn.Module, arguments: Any, output: Any) -> Any:
        return _map_first(output, Tensor.detach) if self._active and self._cuts else None

    def _point_hook(self, name: str) -> Callable[[nn.Module, Any, Any], Any]:
        def keep_and_cut(module: nn.Module, arguments: Any, output: Any) -> Any:
            if not self._active:
                return None
            activation = first_tensor(output, f"feedback point '{name}'")
            self._fired[name] = True
            if self.error_names:
                self._keep(name, activation)
            # A copy, lest an operation in place further up changes what is observed.
            return _map_first(output, self._hand_on) if self._cuts else _with_first(output, activation.clone())

        return keep_and_cut

    def _error_hook(self, name: str) -> Callable[[nn.Module, Any, Any], Any]:
        def close_pass(module: nn.Module, arguments: Any, output: Any) -> Any:
            if not self._active or self.mode == "replay":
                return None
            tensor = first_tensor(output, f"error tensor '{name or 'model output'}'")
            points, self._open = self._open, []
            if self.mode == "observe":
                self.passes.append(Pass(name, points, tensor))
                return None
            crossed = self._cross(name, tensor, points)
            return _with_first(output, crossed)

        return close_pass


def check_trainable(points: Sequence[Point]) -> None:
    """Raise PointError where a signal would reach nothing that learns."""
    for point in points:
        if not point.activation.requires_grad:
            raise PointError(f"feedback point '{point.name}' has nothing below it that could learn")


def first_tensor(output: Any, owner: str) -> Tensor:
    """The tensor that a module's output is or begins with.

    Raises:
        PointError: there is none, or it is of a type that has no gradient.
    """
    first = output[0] if isinstance(output, (tuple, list)) and output else output
    if not isinstance(first, Tensor):
        raise PointError(f"{owner}: its module returns {type(output).__name__}, not a tensor")
    if not (first.is_floating_point() or first.is_complex()):
        raise PointError(f"{owner}: its output is of type {first.dtype} and has no gradient")
    return first


def _map_first(output: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Apply `change` to a tensor, or to the first of several; the others are detached, or they would leak gradient."""
    if isinstance(output, Tensor):
        return change(output)
    return _rebuild(output, [change(output[0]), *(map_tensors(item, Tensor.detach) for item in output[1:])])


def _with_first(output: Any, tensor: Tensor) -> Any:
    """The output with another tensor in its place, or in that of the first of several."""
    return tensor if isinstance(output, Tensor) else _rebuild(output, [tensor, *output[1:]])


def map_tensors(value: Any, change: Callable[[Tensor], Any]) -> Any:
    """Apply `change` to every tensor in nested tuples, lists and dictionaries."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, (tuple, list)):
        return _rebuild(value, [map_tensors(item, change) for item in value])
    if type(value) is dict:
        return {key: map_tensors(item, change) for key, item in value.items()}
    return value


def _rebuild(container: Any, items: list[Any]) -> Any:
    """A container of the same kind; named tuples take their fields one by one."""
    return type(container)(*items) if hasattr(container, "_fields") else type(container)(items)
