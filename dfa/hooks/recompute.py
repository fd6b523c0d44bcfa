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
from dfa.hooks.model import FeedbackHooks
from dfa.hooks.outputs import first_tensor, map_tensors
from dfa.hooks.points import Point, check_trainable
from dfa.hooks.segments import PREVIOUS_OUTPUT, SegmentCall, SegmentedRecord
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
    """Add the gradients of all parameters in the segments of `records`, and of the layers that their inputs came from.

    Each segment starts from the output of the one before, in the order of the forward pass; its graph is freed before
    the next one is built, or the one after `parallel` others, so memory does not grow with their number.

    Args:
        hooks: of the rule.
        records: forward passes whose error is known.
        signals: the signals of a pass, in the order of its points; called for all passes before a segment is run, and
            for the last pass first, as autograd comes to them. They may be made as they are asked for. Random numbers
            drawn for them are not drawn again.
        after_segment: called with parameters whose gradient is complete, never twice at once.
        parallel: number of segments that signals go through at the same time; one where segments share parameters.

    Raises:
        PointError: a segment that did not run as before, or lets gradient out.
    """
    uses = Counter(parameter for record in records for call in record.calls for parameter in _parameters(call))
    outer: list[Tensor] = []
    outer_gradients: list[Tensor] = []
    finishing = Lock()

    def collect(leaves: Leaves) -> None:
        reached = [(tensor, leaf.grad) for tensor, leaf in leaves if leaf.grad is not None]
        outer.extend(tensor for tensor, _ in reached)
        outer_gradients.extend(gradient for _, gradient in reached)

    def backward(call: SegmentCall, points: Sequence[Point], arriving: Sequence[Tensor], leaves: Leaves) -> Leaves:
        torch.autograd.backward([point.activation for point in points], arriving)
        with finishing:
            uses.subtract(_parameters(call))
            if after_segment is not None:
                after_segment([parameter for parameter in _parameters(call) if uses[parameter] == 0])
        return leaves

    devices = sorted({record.leaf.device.index for record in records if record.leaf.is_cuda})
    count = parallel if max(uses.values(), default=0) == 1 and len(devices) < 2 else 1
    device = records[0].leaf.device if records else torch.device("cpu")
    waiting = [signals(record) for record in reversed(records)]
    with torch.enable_grad(), Streams(count, device, collect) as streams:
        for record in records:
            previous: Tensor | None = None
            to_points = waiting.pop()
            for call in record.calls:
                arriving = [next(to_points) for _ in call.points]
                with streams.job(arriving if previous is None else [previous, *arriving]):
                    previous, points, leaves = _run_again(hooks, call, previous)
                    streams.backward(partial(backward, call, points, arriving, leaves))
                    del points, leaves, arriving  # the graph belongs to the job alone, and goes with it
    if outer:
        torch.autograd.backward(outer, outer_gradients)


def _run_again(hooks: FeedbackHooks, call: SegmentCall, previous: Tensor | None) -> tuple[Tensor, list[Point], Leaves]:
    """Run a segment on its arguments, or on the `previous` output; return its output, points and leaves."""
    name = call.segment.name
    if any(tensor._version != version for tensor, version in call.versions):
        raise PointError(f"segment '{name}': an input has been written to since the forward pass")
    leaves: Leaves = []

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
    with hooks.switched("recompute"), _state_of(call), torch.autocast(device, dtype, enabled=autocast):
        for module in call.segment.modules:
            output = module(*args, **kwargs)
            args, kwargs = (output,), {}
        points = hooks.pending_points()
    if [(point.name, point.activation.shape) for point in points] != [
        (point.name, point.activation.shape) for point in call.points
    ]:
        raise PointError(f"segment '{name}' did not reach the same feedback points when it was run again")
    output = first_tensor(output, f"output of segment '{name}'")
    if output.requires_grad:
        raise PointError(f"segment '{name}': its output must be a feedback point, or depend on the segment through one")
    check_trainable(points)
    return output, points, leaves


@contextmanager
def _state_of(call: SegmentCall) -> Iterator[None]:
    """Draw the random numbers of the forward pass again; leave generators and running statistics as they are."""
    on_cpu, on_gpu = call.random
    buffers = [buffer for module in call.segment.modules for buffer in module.buffers()]
    copies = [buffer.clone() for buffer in buffers]
    with torch.random.fork_rng(devices=[] if on_gpu is None else [torch.cuda.current_device()]):
        torch.set_rng_state(on_cpu)
        if on_gpu is not None:
            torch.cuda.set_rng_state(on_gpu)
        yield
    for buffer, copy in zip(buffers, copies, strict=True):
        buffer.data.copy_(copy)  # through `.data`, which does not count as a write: a graph may hold the buffer


def _parameters(call: SegmentCall) -> list[nn.Parameter]:
    found = (parameter for module in call.segment.modules for parameter in module.parameters())
    return list(dict.fromkeys(parameter for parameter in found if parameter.requires_grad))
