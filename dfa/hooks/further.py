"""Tensors that a model returns beside the error tensor, whose error is sent to no feedback point."""

import warnings
from typing import Any

import torch
from torch import Tensor

from dfa.hooks.arrivals import Arrivals
from dfa.hooks.outputs import map_tensors, rebuilt


class FurtherOutputs:
    """Warns, once, where a loss depends on more of a model's output than its first tensor, as one of several heads.

    Args:
        arrivals: tells a rule's own backward, the only one in which errors count.
    """

    def __init__(self, arrivals: Arrivals) -> None:
        self._arrivals = arrivals
        self._told = False

    def watch(self, output: Any) -> Any:
        """Return the output with a view of each further tensor, which gradients reach only where the loss uses it."""
        if self._told or not isinstance(output, (tuple, list)) or torch.compiler.is_compiling():
            return output
        first, *further = output
        watched = [map_tensors(part, self._watched) if isinstance(part, (Tensor, tuple)) else part for part in further]
        return rebuilt(output, [first, *watched])

    def _watched(self, tensor: Tensor) -> Tensor:
        if not tensor.requires_grad or tensor.is_leaf:
            return tensor
        view = tensor.view_as(tensor)
        view.register_hook(self._tell)
        return view

    def _tell(self, error: Tensor) -> None:
        if self._arrivals.are_expected and not self._told:
            self._told = True
            warnings.warn(
                "the loss depends on further tensors that the model returns beside the first, and their error is sent"
                " to no feedback point, so that only the layers above the points learn from it: to send it, too, take"
                " the error at the module that all are computed from (error_at='trunk')",
                UserWarning,
                stacklevel=2,
            )
