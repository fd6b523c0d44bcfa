"""When to try which rows of a point a row of the error depends on, where sizes cannot tell: once, in a second pass."""

import weakref
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from dfa.feedback.order import counts_neighbours, sample_dims
from dfa.hooks.graphs import nodes_below, runs_again
from dfa.hooks.points import ForwardRecord, Mode, Point, Recorder
from dfa.hooks.row_trials import check_rows
from dfa.hooks.surroundings import is_sharded

_INNERMOST_SAVING_HOOKS = getattr(torch._C._autograd, "_top_saved_tensors_default_hooks", None)
"""Hooks on what autograd saves, among them those of a checkpoint; older versions of PyTorch do not tell them."""


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
        self._open: set[str] = set()  # points to be tried as soon as they run again, in a mode that has been seen
        self._closed: set[tuple[str, torch.Size]] = set()  # points and sizes with which nothing was to be tried
        self._modes: set[bool] = set()  # training or evaluation, where a pass has ended in it
        self._settled: set[str] = set()
        self._in_call = self._trying = self._in_checkpoint = False  # in the call under way, or the last
        self._checkpointed: list[weakref.ref[ForwardRecord]] = []  # passes with checkpoints that no error has reached
        self._entered: list[weakref.ref[Point]] = []  # they go with their graph

    def attach(self, model: nn.Module, mode: Callable[[], Mode]) -> list[RemovableHandle]:
        self._sharded = is_sharded(model)
        self._mode_now = lambda: model.training
        return self._recorder.attach(model, mode)

    def replaced_by(self, other: Recorder) -> Recorder:
        self._recorder = other
        return self

    def needs_gradients(self) -> bool:
        return self._recorder.needs_gradients()

    def start(self) -> None:
        if not (torch.compiler.is_compiling() or self._in_call):
            self._in_call, self._in_checkpoint = True, False
            if not self._checkpoints_wait():  # which must find what they found in the passes themselves
                self._trying = self._is_due()
        self._recorder.start()

    def reset(self) -> None:
        if not torch.compiler.is_compiling():
            self._in_call = False
        self._recorder.reset()

    def check_alone(self, name: str) -> None:
        self._recorder.check_alone(name)

    def at_point(self, name: str, activation: Tensor) -> tuple[Point, Tensor]:
        point, handed_on = self._recorder.at_point(name, activation)
        if torch.compiler.is_compiling():
            return point, handed_on
        again = runs_again()
        checkpointed = not again and _inside_checkpoint()
        self._in_checkpoint |= checkpointed or _INNERMOST_SAVING_HOOKS is None
        if not again and (name, _sizes(activation)) in self._closed:
            self._trying = False
        if not (self._trying if again or self._in_call else self._is_due() and not checkpointed):
            return point, handed_on
        entry = handed_on if handed_on.requires_grad else handed_on.requires_grad_()
        if not again:
            point.entry = entry
            self._entered = [*(alive for alive in self._entered if alive() is not None), weakref.ref(point)]
        return point, entry.clone()  # which may be written to further up

    def learns_from(self, tensor: Tensor) -> bool:
        return self._recorder.learns_from(tensor)

    def at_point_of_part(self, name: str, activation: Tensor) -> tuple[Point, Tensor]:
        return self._recorder.at_point_of_part(name, activation)

    def observe_point(self, name: str, activation: Tensor) -> tuple[Point, Tensor]:
        return self._recorder.observe_point(name, activation)

    def observe_error(self, name: str, tensor: Tensor, points: list[Point]) -> ForwardRecord:
        return self._recorder.observe_error(name, tensor, points)

    def at_error(self, name: str, tensor: Tensor, points: list[Point]) -> tuple[ForwardRecord, Tensor]:
        if not (torch.compiler.is_compiling() or self._sharded):
            self._probe(tensor, points)
        record, passed_on = self._recorder.at_error(name, tensor, points)
        if self._in_checkpoint and not torch.compiler.is_compiling():
            self._checkpointed.append(weakref.ref(record))
        return record, passed_on

    def _is_due(self) -> bool:
        # What is checked in the first pass of each mode must meet tensors as they are in the passes after it.
        return bool(self._open) and self._mode_now() in self._modes

    def _checkpoints_wait(self) -> bool:
        records = [record for alive in self._checkpointed if (record := alive()) is not None]
        self._checkpointed = [weakref.ref(record) for record in records if not record.error_received]
        return bool(self._checkpointed)

    def _probe(self, error: Tensor, points: Sequence[Point]) -> None:
        open_ones = [point for point in points if point.name not in self._settled and _is_open(point, error)]
        if open_ones and _inside_checkpoint():
            return
        probed = [point for point in open_ones if point.entry is not None]
        waiting = {point.name for point in open_ones if point.entry is None} - {point.name for point in probed}
        never = self._open & waiting if self._in_call and self._trying else set()  # run in a compiled part
        if waiting and _has_compiled_parts([error, *(point.activation for point in points[1:])]):
            never = waiting  # which would be compiled anew
        settled = never.union(point.name for point in probed)
        self._settled |= settled
        self._closed.difference_update((point.name, _sizes(point.activation)) for point in open_ones)
        tried = [point for point in points if point.entry is not None and not _is_open(point, error)]
        self._closed.update((point.name, _sizes(point.activation)) for point in tried if point.name in self._open)
        self._open = (self._open | waiting) - settled
        self._modes.add(self._mode_now())
        if probed:
            entered = [point for alive in self._entered if (point := alive()) is not None]
            lowest = min(i for i, one in enumerate(entered) if any(one.entry is point.entry for point in probed))
            check_rows(error, entered[lowest:], probed)


def _sizes(activation: Tensor) -> torch.Size:
    """Return the sizes that tell whether the order of rows is open, see `sample_dims`."""
    return activation.shape[:2] if activation.ndim > 3 else activation.shape[:1]


def _is_open(point: Point, error: Tensor) -> bool:
    shape = point.activation.shape
    return counts_neighbours(shape, error.shape) or bool(sample_dims(shape, error.shape[0]))


def _has_compiled_parts(ends: Sequence[Tensor]) -> bool:
    nodes = nodes_below(end.grad_fn for end in ends)
    return any(type(node).__name__ == "CompiledFunctionBackward" for node in nodes)


def _inside_checkpoint() -> bool:
    """Whether this is part of a checkpoint, which cannot go backward before it has ended."""
    hooks = (None if _INNERMOST_SAVING_HOOKS is None else _INNERMOST_SAVING_HOOKS(True)) or [None]
    return getattr(hooks[0], "__module__", "") == "torch.utils.checkpoint"
