"""Whether a row of the error depends on the rows of a point that are counted for it, where sizes cannot tell."""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from dfa.errors import FeedbackError
from dfa.feedback.order import counts_neighbours
from dfa.feedback.rows import as_rows
from dfa.hooks.graphs import runs_again
from dfa.hooks.points import ForwardRecord, Mode, Point, Recorder
from dfa.hooks.surroundings import is_sharded

ROWS = 8
"""Rows of the error that are tried."""


class ProbingRecorder(Recorder):
    """Records as another recorder does, and tries once what the order of rows is at points where it is open.

    The first pass shows which points these are. In the next one points hand on tensors with a gradient, so that
    autograd tells which of their rows a row of the error depends on. Nothing is tried in compiled or sharded models.

    Args:
        recorder: the other one.

    Raises:
        FeedbackError: in the second forward pass, the rows of a point are in another order than the error's.
    """

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder
        self._probing = self._probing_pass = False  # in the next pass; in the one under way, or the last
        self._settled: set[str] = set()
        self._entries: list[tuple[Point, Tensor]] = []

    def attach(self, model: nn.Module, mode: Callable[[], Mode]) -> list[RemovableHandle]:
        self._sharded = is_sharded(model)
        return self._recorder.attach(model, mode)

    def needs_gradients(self) -> bool:
        return self._recorder.needs_gradients()

    def start(self) -> None:
        self._probing_pass = self._probing
        self._recorder.start()

    def reset(self) -> None:
        self._entries = []
        self._recorder.reset()

    def check_alone(self, name: str) -> None:
        self._recorder.check_alone(name)

    def at_point(self, name: str, activation: Tensor) -> tuple[Point, Tensor]:
        point, handed_on = self._recorder.at_point(name, activation)
        if torch.compiler.is_compiling():
            return point, handed_on
        again = runs_again()  # a checkpoint, which must find what it found in the pass itself
        if not (self._probing_pass if again else self._probing):
            return point, handed_on
        entry = handed_on if handed_on.requires_grad else handed_on.requires_grad_()
        if not again:
            self._entries.append((point, entry))
        return point, entry.clone()  # which may be written to further up

    def at_point_of_part(self, name: str, activation: Tensor) -> tuple[Point, Tensor]:
        return self._recorder.at_point_of_part(name, activation)

    def observe_point(self, name: str, activation: Tensor) -> tuple[Point, Tensor]:
        return self._recorder.observe_point(name, activation)

    def observe_error(self, name: str, tensor: Tensor, points: list[Point]) -> ForwardRecord:
        return self._recorder.observe_error(name, tensor, points)

    def at_error(self, name: str, tensor: Tensor, points: list[Point]) -> tuple[ForwardRecord, Tensor]:
        if not (torch.compiler.is_compiling() or self._sharded):
            self._probe(tensor, points)
        return self._recorder.at_error(name, tensor, points)

    def _probe(self, error: Tensor, points: Sequence[Point]) -> None:
        open_ones = [
            point
            for point in points
            if point.name not in self._settled and counts_neighbours(point.activation.shape, error.shape)
        ]
        if not open_ones or _inside_checkpoint():
            return
        probed = [point for point in open_ones if any(point is other for other, _ in self._entries)]
        self._probing = len(probed) < len(open_ones)  # in the next pass
        if probed:
            self._settled.update(point.name for point in probed)
            check_own_rows(error, self._entries, probed)


def check_own_rows(error: Tensor, entries: Sequence[tuple[Point, Tensor]], probed: Sequence[Point]) -> None:
    """Check that rows of points act on the row of the error whose signal they get, if they act on any.

    Derivatives are exactly zero where there is no dependence. A model that mixes all rows, as batch normalisation does,
    hides their order.

    Args:
        error: the error tensor.
        entries: the points of the forward pass, in order, with what each handed on.
        probed: those to be checked.

    Raises:
        FeedbackError: some rows of a point act on other rows of the error alone.
    """
    if error.is_cuda and torch.cuda.is_current_stream_capturing():
        return
    leading = max(1, error.ndim - 1)
    rows = prod(error.shape[:leading])
    numbers = torch.randn(error.shape, generator=torch.Generator().manual_seed(0), device="cpu").to(error)
    try:
        acting = _acting_rows(error, numbers, entries, leading)
        for row in range(0, rows, -(-rows // ROWS)):
            only = torch.zeros_like(numbers)
            as_rows(only, leading)[row] = as_rows(numbers, leading)[row]
            acting_here = _acting_rows(error, only, entries, leading)
            for point in probed:
                anywhere, here = acting[id(point)], acting_here[id(point)]
                repeats = len(anywhere) // rows
                own = slice(row * repeats, (row + 1) * repeats)
                if (anywhere[own] & ~here[own]).any():
                    raise FeedbackError(
                        f"point '{point.name}' has the shape {tuple(point.activation.shape)} and the error"
                        f" {tuple(error.shape)}, but its rows are not in the error's order, each in its place or as"
                        " neighbours: they act on other rows of the error. Take a point, or an error, with rows in one"
                        f" order, or say with batch_dims={leading} that they are"
                    )
    except RuntimeError:  # of a part whose derivative can be asked for only once, as a compiled one's
        return


def _acting_rows(
    error: Tensor, numbers: Tensor, entries: Sequence[tuple[Point, Tensor]], leading: int
) -> dict[int, Tensor]:
    """Send numbers from the error tensor down through all points as backpropagation would; tell where some arrive."""
    outputs, arriving = [error], [numbers]
    acting: dict[int, Any] = {}
    for point, entry in reversed(entries):
        with torch._C.DisableTorchFunction():  # a model's own derivatives are watched, see `DerivativeWatch`
            (received,) = torch.autograd.grad(outputs, [entry], arriving, retain_graph=True, materialize_grads=True)
        acting[id(point)] = as_rows(received, leading).ne(0).any(1)
        if point.activation.requires_grad:
            outputs, arriving = [*outputs, point.activation], [*arriving, received]
    return acting


def _inside_checkpoint() -> bool:
    """Whether this is part of a checkpoint, which cannot go backward before it has ended."""
    top = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)  # not in older versions
    hooks = (top(True) if top is not None else None) or [None]
    return getattr(hooks[0], "__module__", "") == "torch.utils.checkpoint"
