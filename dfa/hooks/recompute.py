"""Running segments again, one at a time, each with a graph that lasts until its signals have gone through it."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn

from dfa.errors import PointError
from dfa.hooks.graphs import backward_from
from dfa.hooks.leaks import MutableArguments
from dfa.hooks.model import FeedbackHooks
from dfa.hooks.outputs import first_tensor, map_tensors, tensors_in
from dfa.hooks.segment_records import PREVIOUS_OUTPUT, SampledPoint, SegmentCall, SegmentedRecord
from dfa.hooks.streams import Streams

AfterSegment = Callable[[list[nn.Parameter]], None]
Signals = Callable[[SegmentedRecord], Iterator[Tensor]]
Leaves = list[tuple[Tensor, Tensor]]
"""Inputs of a segment that need a gradient, each with the leaf that stands in for it and holds the gradient."""


def train_segments(
    hooks: FeedbackHooks,
    records: Sequence[SegmentedRecord],
    signals: Signals,
    after_segment: AfterSegment | None = None,
    parallel: int = 1,
) -> None:
    """Add the gradients of all parameters in the segments of `records`, and of the layers outside that they hang on.

    The last pass comes first, for what it hands down may be part of the error of one before, as a decoder's is of its
    encoder's. In each, a segment starts from the output of the one before, in the order of the forward pass; its graph
    is freed before the next one is built, or the one after `parallel` others, so memory does not grow with their
    number. The graph outside of the segments follows, in one run from all that leads to it.

    Args:
        hooks: of the rule.
        records: forward passes, in their order; those that no error reaches stay as they are.
        signals: the signals of a pass, in the order of its points. They may be made as they are asked for. Random
            numbers drawn for them are not drawn again.
        after_segment: called with parameters whose gradient is complete, never twice at once.
        parallel: number of segments that signals go through at the same time; one where segments share parameters.

    Raises:
        PointError: a segment that did not run as before, or lets gradient out.
    """
    trainer = _Trainer(hooks, signals, after_segment, parallel, records)
    for index, record in reversed([*enumerate(records)]):
        if record.leaf.grad is None:
            for call in record.calls:
                trainer.finish(call)
            continue
        record.error_received = True
        roots = trainer.train(record)
        if record.output.requires_grad:  # not where it is a segment's own output
            roots.append((record.output, record.leaf.grad))
        if roots:
            with _told_apart():
                tensors, gradients = zip(*roots, strict=True)
                torch.autograd.backward(tensors, gradients, retain_graph=index > 0)  # which other passes may share
            del roots, tensors, gradients
        record.release()


class _Trainer:
    """Trains the segments of one pass after the other; see `train_segments`."""

    def __init__(
        self,
        hooks: FeedbackHooks,
        signals: Signals,
        after_segment: AfterSegment | None,
        parallel: int,
        records: Sequence[SegmentedRecord],
    ) -> None:
        self._hooks, self._signals, self._after_segment = hooks, signals, after_segment
        self._uses = Counter(one for record in records for call in record.calls for one in call.state.parameters())
        self._trained: set[Tensor] = set()
        self._finishing = Lock()
        devices = sorted({record.leaf.device.index for record in records if record.leaf.is_cuda})
        self._parallel = parallel if max(self._uses.values(), default=0) == 1 and len(devices) < 2 else 1

    def train(self, record: SegmentedRecord) -> list[tuple[Tensor, Tensor]]:
        """Run the segments of a pass again, each with its signals; return their inputs and the gradients of these."""
        outer: list[tuple[Tensor, Tensor]] = []

        def collect(leaves: Leaves) -> None:
            outer.extend((tensor, leaf.grad) for tensor, leaf in leaves if leaf.grad is not None)

        to_points = self._signals(record)
        previous: Tensor | None = None
        compared: list[tuple[SegmentCall, list[Tensor]]] = []
        with torch.enable_grad(), Streams(self._parallel, record.leaf.device, collect) as streams:
            for call in record.calls:
                arriving = [next(to_points) for _ in call.points]
                with streams.job(arriving if previous is None else [previous, *arriving]):
                    previous, points, leaves = _run_again(self._hooks, call, previous)
                    compared.append((call, [point.sample for point in points]))
                    streams.backward(partial(self._backward, call, points, arriving, leaves))
                    del points, leaves, arriving  # the graph belongs to the job alone, and goes with it
        for call, samples in compared:  # at the end, lest a GPU be waited for in every segment
            _check_same(call, samples)
        return outer

    def finish(self, call: SegmentCall, trained: bool = False) -> None:
        """Note that a segment needs its parameters no more, and pass on those whose gradient is complete."""
        with self._finishing:
            parameters = call.state.parameters()
            self._uses.subtract(parameters)
            if trained:
                self._trained.update(parameters)
            learned = (one for one in parameters if self._uses[one] == 0 and one in self._trained)
            complete = [one for one in learned if isinstance(one, nn.Parameter)]
            if self._after_segment is not None and (trained or complete):
                self._after_segment(complete)

    def _backward(
        self, call: SegmentCall, points: Sequence[SampledPoint], arriving: Sequence[Tensor], leaves: Leaves
    ) -> Leaves:
        with _told_apart():
            trained = backward_from(
                [(point.activation, signal) for point, signal in zip(points, arriving, strict=True)]
            )
        self.finish(call, trained=trained)
        return leaves


@contextmanager
def _told_apart() -> Iterator[None]:
    """Replace autograd's error about two runs that share a part of the graph."""
    try:
        yield
    except RuntimeError as error:
        if "backward through the graph a second time" not in str(error):
            raise
        raise PointError(
            "memory='recompute' meets a part of the graph twice: the loss, or another segment, reaches it past the"
            " error tensor and the segments' arguments; take memory='keep'"
        ) from error


def _run_again(
    hooks: FeedbackHooks, call: SegmentCall, previous: Tensor | None
) -> tuple[Tensor, list[SampledPoint], Leaves]:
    """Run a segment on its arguments, or on the `previous` output; return its output, points and leaves."""
    name = call.segment.name
    if any(tensor._version != version for tensor, version in call.versions):
        raise PointError(f"segment '{name}': an input has been written to since the forward pass")
    call.state.check_unchanged()
    leaves: Leaves = []
    states = MutableArguments(name, call.arguments)

    def argument(value: Tensor) -> Tensor:
        if value is PREVIOUS_OUTPUT:
            assert previous is not None
            return previous
        if value.requires_grad:
            leaves.append((value, value.detach().requires_grad_()))
            return leaves[-1][1]
        return value

    args, kwargs = map_tensors(call.arguments, argument)
    device, dtype, autocast = call.autocast
    output: Any = None
    with (
        states.unchanged(),
        hooks.switched("recompute"),
        call.state.restored(argument),
        _random_numbers_of(call),
        torch.autocast(device, dtype, enabled=autocast),
    ):
        for module in call.segment.modules:
            output = module(*args, **kwargs)
            args, kwargs = (output,), {}
        points = [point for point in hooks.pending_points() if isinstance(point, SampledPoint)]
    if [(point.name, point.activation.shape) for point in points] != [
        (point.name, point.activation.shape) for point in call.points
    ]:
        raise PointError(f"segment '{name}' did not reach the same feedback points when it was run again")
    if any(tensor.requires_grad for tensor in tensors_in(output)):
        raise PointError(f"segment '{name}': its output must be a feedback point, or depend on the segment through one")
    hooks.trainable.check(points)
    return first_tensor(output, f"output of segment '{name}'"), points, leaves


def _check_same(call: SegmentCall, samples: Sequence[Tensor]) -> None:
    """Compare a second run with the first by samples of the points, as far as rounding allows.

    Raises:
        PointError: they differ.
    """
    _, reduced, autocast = call.autocast
    for point, again in zip(call.points, samples, strict=True):
        if torch.equal(point.sample, again):
            continue
        coarsest = max(torch.finfo(dtype).eps for dtype in (again.dtype, *([reduced] if autocast else [])))
        first, difference = point.sample.abs(), (again - point.sample).abs()
        if (difference > max(1e-3, coarsest**0.5) * first.max()).any():  # false where a number is not finite
            raise PointError(
                f"segment '{call.segment.name}': point '{point.name}' gave other values when it was run again, as"
                " memory='recompute' does: the segment must do the same twice, without a random generator of its own"
                " and without reading what later passes change; or take memory='keep'"
            )


@contextmanager
def _random_numbers_of(call: SegmentCall) -> Iterator[None]:
    """Draw the random numbers of the forward pass again; leave the generators as they are."""
    on_cpu, on_gpu = call.random
    with torch.random.fork_rng(devices=[] if on_gpu is None else [torch.cuda.current_device()]):
        torch.set_rng_state(on_cpu)
        if on_gpu is not None:
            torch.cuda.set_rng_state(on_gpu)
        yield
