"""Errors that no feedback point receives: at further outputs of a model, and behind the cut of a point."""

import warnings
from collections.abc import Callable, Collection
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from dfa.hooks.arrivals import Arrivals
from dfa.hooks.graphs import nodes_below
from dfa.hooks.outputs import fields_of, map_tensors, rebuilt, replace_field, tensors_in
from dfa.hooks.points import sends_errors

_FURTHER = (
    "the loss depends on further tensors that the model returns beside the {error}, and their error is sent to no"
    " feedback point: of what they are computed from, only layers above the points learn from it. To send it, too, take"
    " the error at the module that all are computed from (error_at='trunk')"
)
_RETURNED = (
    "the loss depends on the output of feedback point '{point}', which the model returns: no gradient crosses a point,"
    " so that this term trains nothing. Leave the term out of the loss, or the module out of the points"
)
_BESIDE = (
    "the loss depends on what feedback point '{point}' returns beside its first tensor, such as the last state of an"
    " LSTM: the signal arrives at the first tensor alone. Where the model does not use that one, take another module"
    " for the point"
)


class FurtherOutputs:
    """Warns, once of each kind, where an error arrives that is sent to no feedback point.

    Args:
        arrivals: tells a rule's own backward, the only one in which errors count.
    """

    def __init__(self, arrivals: Arrivals) -> None:
        self._arrivals = arrivals
        self._told: set[str] = set()
        self._handed_on: WeakValueDictionary[tuple[str, int], Tensor] = WeakValueDictionary()

    def watch(self, output: Any, errors: Collection[str]) -> Any:
        """Return the output with a view of each further tensor, which gradients reach only where the loss uses it.

        Args:
            output: of the model.
            errors: fields that are error tensors; if none, its first tensor is.
        """
        if not self._may_tell(_FURTHER):
            return output
        if errors:
            for name, part in fields_of(output).items():
                if name not in errors and (watched := self._with_arrivals("error tensor", part)) is not part:
                    output = replace_field(output, name, watched)
        elif isinstance(output, (tuple, list)):
            output = rebuilt(output, [output[0], *(self._with_arrivals("first", part) for part in output[1:])])
        return output

    def watch_end(self, output: Any, inner: bool) -> Any:
        """Return a model's output so that an error is reported that arrives past the error tensors, or at a point.

        Args:
            output: of the model.
            inner: whether there are error tensors inside the model. What comes from one is no further tensor.
        """
        if inner and self._may_tell(_FURTHER):
            output = self._with_arrivals("error tensor", output)
        return self._watch_handed_on(output)

    def note(self, point: str, *tensors: Tensor) -> None:
        """Note what a point hands on, or a tensor of the same storage."""
        if self._may_tell(_RETURNED):
            self._handed_on.update({(point, id(tensor)): tensor for tensor in tensors})

    def _watch_handed_on(self, output: Any) -> Any:
        if not self._may_tell(_RETURNED) or not self._handed_on:
            return output
        points = {_place(tensor): point for (point, _), tensor in self._handed_on.items()}

        def is_cut(tensor: Tensor) -> bool:
            place = 0 if tensor.requires_grad else _place(tensor)
            return place != 0 and place in points

        def watched(tensor: Tensor) -> Tensor:
            return self._watch(tensor, _RETURNED, points[_place(tensor)]) if is_cut(tensor) else tensor

        return map_tensors(output, watched) if any(map(is_cut, tensors_in(output))) else output

    def cut(self, point: str, learns: Callable[[Tensor], bool], tensor: Tensor) -> Tensor:
        """Detach what a point returns beside its first tensor; an error that arrives there is reported.

        Args:
            point: its name.
            learns: tells whether a tensor depends on what learns.
            tensor: one of those beside the first.
        """
        if not self._may_tell(_BESIDE) or not learns(tensor):
            return tensor.detach()
        return self._watch(tensor, _BESIDE, point)

    def _may_tell(self, text: str) -> bool:
        return not torch.compiler.is_compiling() and text not in self._told

    def _with_arrivals(self, error: str, part: Any) -> Any:
        """Return a part of an output with a view of each tensor that learns, whose errors are reported."""
        if not any(map(self._learns, tensors_in(part))):
            return part
        if isinstance(part, (tuple, list)):
            return rebuilt(part, [self._with_arrivals(error, item) for item in part])
        return map_tensors(part, lambda tensor: self._viewed(error, tensor) if self._learns(tensor) else tensor)

    def _learns(self, tensor: Tensor) -> bool:
        if not tensor.requires_grad or tensor.is_leaf:
            return False
        # What a point has handed on requires a gradient while the order of rows is tried.
        return not any(tensor is other for other in self._handed_on.values())

    def _viewed(self, error: str, tensor: Tensor) -> Tensor:
        node = tensor.grad_fn

        def arrived(_: Tensor) -> None:
            if (
                self._arrivals.are_expected
                and _FURTHER not in self._told
                and not any(map(_may_send, nodes_below([node])))
            ):
                self._tell(_FURTHER, error=error)

        view = tensor.view_as(tensor)
        view.register_hook(arrived)
        return view

    def _watch(self, tensor: Tensor, text: str, point: str) -> Tensor:
        anchor = torch.empty((), requires_grad=True)
        with torch.enable_grad():  # segments that are run again run without
            watched: Tensor = _Arrival.apply(partial(self._tell, text, point=point), anchor, tensor.detach())
        return watched

    def _tell(self, text: str, **names: str) -> None:
        if self._arrivals.are_expected and text not in self._told:
            self._told.add(text)
            warnings.warn(text.format(**names), UserWarning, stacklevel=2)


class _Arrival(torch.autograd.Function):
    """The identity on a tensor that no gradient crosses; calls a function where one arrives.

    The anchor is what requires a gradient.
    """

    @staticmethod
    def forward(ctx: Any, tell: Callable[[], None], anchor: Tensor, tensor: Tensor) -> Tensor:
        ctx.tell = tell
        return tensor.detach()  # a view could not be written to

    @staticmethod
    def backward(ctx: Any, *errors: Tensor) -> Any:
        ctx.tell()
        return None, None, None


def _may_send(node: Any) -> bool:
    """Whether a node sends errors, or is a compiled part, which may."""
    return sends_errors(node) or type(node).__name__ == "CompiledFunctionBackward"


def _place(tensor: Tensor) -> int:
    """Where the memory of a tensor begins, which its views share; 0 for one without, or of a type of its own."""
    is_plain = type(tensor) is Tensor and tensor.layout == torch.strided
    is_plain = is_plain and not torch._C._functorch.is_functorch_wrapped_tensor(tensor)
    return tensor.untyped_storage().data_ptr() if is_plain else 0
