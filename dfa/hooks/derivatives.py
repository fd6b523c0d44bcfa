"""Derivatives of a model by what lies below a feedback point, which they would lack where the graph is cut."""

import warnings
import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, _get_current_function_mode
from torch.utils.hooks import RemovableHandle, unserializable_hook

from dfa.errors import PointError
from dfa.hooks.graphs import leaves_below, nodes_below
from dfa.hooks.outputs import tensors_in
from dfa.hooks.passes import is_called
from dfa.hooks.placing import Hook
from dfa.hooks.points import DERIVATIVE, Mode, Point, Recorder

_DERIVATIVES = (torch.autograd.grad, torch.autograd.backward, Tensor.backward)


class FrozenRecorder(Recorder):
    """Records nothing, for rules that send nothing below their points, and refuses derivatives that are derived again.

    They would lack all that lies below the points, and no error tensor is there to tell. For the same reason it warns,
    once, where another model is to learn through the points.
    """

    def __init__(self) -> None:
        super().__init__()
        self._told = False
        self._inputs: list[weakref.ref[Tensor]] = []  # of the pass under way, those that require a gradient

    def at_point(self, name: str, activation: Tensor) -> tuple[Point, Tensor]:
        if self._inputs and not (self._told or torch.compiler.is_compiling()):
            found = _graph_of([activation])
            if any(_place_of(tensor) in found for alive in self._inputs if (tensor := alive()) is not None):
                self._told = True
                warnings.warn(
                    "an input of the model requires a gradient, and none comes back through a feedback point: where"
                    " another model is to learn from it, as the generator of a GAN, call this one in rule.paused()",
                    UserWarning,
                    stacklevel=2,
                )
        return super().at_point(name, activation)

    def attach(self, model: nn.Module, mode: Callable[[], Mode]) -> list[RemovableHandle]:
        def training() -> bool:
            return mode() == "cut" and torch.is_grad_enabled() and not torch.compiler.is_compiling()

        def look(module: nn.Module, arguments: Any, named: Any) -> None:
            self._inputs = []
            if training() and not self._told:
                with suppress(RecursionError):  # of a container that holds itself
                    given = tensors_in((arguments, named))
                    self._inputs = [weakref.ref(tensor) for tensor in given if tensor.requires_grad]

        def watch(module: nn.Module, arguments: Any, output: Any) -> None:
            if training():
                for tensor in tensors_in(output):
                    if tensor.requires_grad:
                        tensor.register_hook(_refuse_derivative)

        return [
            model.register_forward_pre_hook(Hook(look), with_kwargs=True),
            model.register_forward_hook(Hook(watch)),
        ]


@unserializable_hook
def _refuse_derivative(gradient: Tensor) -> None:
    if torch.is_grad_enabled():
        raise PointError(DERIVATIVE)


class DerivativeWatch(TorchFunctionMode):
    """Refuses, while it is entered, derivatives by what a feedback point was computed from.

    A model that returns forces, the negative derivative of an energy, would return others where the graph is cut. What
    is derived by tensors that no point depends on stays as it is: within a block, or between two points.

    Args:
        model: in whose calls derivatives are refused; outside of them nothing happens.

    Attributes:
        refused: whether one has been.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.refused = False
        self._model = model
        self._passed: dict[str, list[Tensor]] = {}

    def note(self, point: str, below: Sequence[Tensor]) -> None:
        """Note that a point has run, and tensors that it was computed from, with their graph."""
        self._passed.setdefault(point, []).extend(below)

    def stop(self) -> None:
        """Leave, if nothing else has been entered since: an interrupt may have left that open."""
        if _get_current_function_mode() is self:
            self.__exit__(None, None, None)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _DERIVATIVES and not torch.compiler.is_compiling() and is_called(self._model):
            self._check(args[0], args[1] if len(args) > 1 else (kwargs or {}).get("inputs"))
        return func(*args, **(kwargs or {}))

    def _check(self, outputs: Any, inputs: Any) -> None:
        """Refuse a derivative of `outputs` by `inputs`, or by all leaves, where a point depends on one of these."""
        if inputs is None:
            tensors = [outputs] if isinstance(outputs, Tensor) else [one for one in outputs if isinstance(one, Tensor)]
            inputs = [leaf for tensor in tensors for leaf in leaves_below(tensor)]
        for point, below in self._passed.items():
            found = _graph_of(below)
            if any(_place_of(one) in found for one in inputs):
                self.refused = True
                raise PointError(
                    f"the model takes a derivative in its forward pass, which would lack all that lies below feedback"
                    f" point '{point}', where the graph is cut: train such a model by 'bp' or 'fa', or take points that"
                    " run after the derivative"
                )


def _graph_of(tensors: Iterable[Tensor]) -> set[Any]:
    """Return the nodes of a graph, with leaves by their identity."""
    tensors = list(tensors)
    nodes = set(nodes_below([tensor.grad_fn for tensor in tensors]))
    leaves = {id(leaf) for tensor in tensors for leaf in leaves_below(tensor)}
    return nodes | leaves | {id(tensor) for tensor in tensors if tensor.is_leaf and tensor.requires_grad}


def _place_of(value: Any) -> Any:
    """Return the node that a tensor, or an edge of a graph, belongs to; of a leaf, its identity."""
    if isinstance(value, Tensor):
        return id(value) if value.grad_fn is None else value.grad_fn
    variable = getattr(value.node, "variable", None)
    return value.node if variable is None else id(variable)
