"""Running stages again, one at a time, each with a graph that lasts until its signals have gone through it."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn

from dfa.errors import PointError
from dfa.hooks.points import Point, check_trainable, first_tensor, map_tensors
from dfa.hooks.stages import RUNNING, StageCall, StagedPass, StagedTaps
from dfa.hooks.streams import Lanes

AfterStage = Callable[[list[nn.Parameter]], None]
Signals = Callable[[StagedPass], Iterator[Tensor]]
Reached = list[tuple[Tensor, Tensor]]
"""Inputs that want a gradient, and leaves in their place that hold it."""


def run_again(
    taps: StagedTaps,
    passes: Sequence[StagedPass],
    signals: Signals,
    after_stage: AfterStage | None = None,
    parallel: int = 1,
) -> None:
    """Add the gradients of all parameters in the stages of `passes`, and of what their inputs came from.

    Each stage starts from the output of the one before, in the order of the forward pass; its graph is gone before the
    next one is built, or the one after `parallel` others, so memory does not grow with their number.

    Args:
        signals: the signals of a pass, in the order of its points; called for all passes before a stage is run, and for
            the last pass first, as autograd comes to them. They may be made as they are asked for. What they draw from
            the global generator is not drawn again.
        after_stage: called with parameters whose gradient is complete, never twice at once.
        parallel: through how many stages signals may go at the same time. Where stages share parameters it is one.

    Raises:
        PointError: a stage that did not run as before, or lets gradient out.
    """
    uses = Counter(parameter for record in passes for call in record.calls for parameter in _parameters(call))
    outer: list[Tensor] = []
    outer_gradients: list[Tensor] = []
    finishing = Lock()

    def arrived(leaves: Reached) -> None:
        reached = [(tensor, leaf.grad) for tensor, leaf in leaves if leaf.grad is not None]
        outer.extend(tensor for tensor, _ in reached)
        outer_gradients.extend(gradient for _, gradient in reached)

    def send(call: StageCall, points: Sequence[Point], arriving: Sequence[Tensor], leaves: Reached) -> Reached:
        torch.autograd.backward([point.activation for point in points], arriving)
        with finishing:
            uses.subtract(_parameters(call))
            if after_stage is not None:
                after_stage([parameter for parameter in _parameters(call) if uses[parameter] == 0])
        return leaves

    devices = sorted({record.leaf.device.index for record in passes if record.leaf.is_cuda})
    count = parallel if max(uses.values(), default=0) == 1 and len(devices) < 2 else 1
    device = passes[0].leaf.device if passes else torch.device("cpu")
    waiting = [signals(record) for record in reversed(passes)]
    with torch.enable_grad(), Lanes(count, device, arrived) as lanes:
        for record in passes:
            running: Tensor | None = None
            to_points = waiting.pop()
            for call in record.calls:
                arriving = [next(to_points) for _ in call.points]
                with lanes.job(arriving if running is None else [running, *arriving]):
                    running, points, leaves = _run(taps, call, running)
                    lanes.second(partial(send, call, points, arriving, leaves))
                    del points, leaves, arriving  # the graph is the job's alone, and goes with it
    if outer:
        torch.autograd.backward(outer, outer_gradients)


def _run(taps: StagedTaps, call: StageCall, running: Tensor | None) -> tuple[Tensor, list[Point], Reached]:
    """Run one stage; its output, its points, and its inputs that want a gradient as leaves."""
    name = call.stage.name
    if any(tensor._version != version for tensor, version in call.versions):
        raise PointError(f"stage '{name}': an input has been written to since the forward pass")
    leaves: Reached = []

    def given(value: Tensor) -> Tensor:
        if value is RUNNING:
            assert running is not None
            return running
        if value.requires_grad:
            leaves.append((value, value.detach().requires_grad_()))
            return leaves[-1][1]
        return value

    args, kwargs = map_tensors(call.arguments, given)
    device, dtype, autocast = call.autocast
    output: Any = None
    with taps.switched("replay"), _as_before(call), torch.autocast(device, dtype, enabled=autocast):
        for module in call.stage.modules:
            output = module(*args, **kwargs)
            args, kwargs = (output,), {}
        points = taps.open_points()
    if [(point.name, point.activation.shape) for point in points] != [
        (point.name, point.activation.shape) for point in call.points
    ]:
        raise PointError(f"stage '{name}' did not reach the same feedback points when it was run again")
    output = first_tensor(output, f"output of stage '{name}'")
    if output.requires_grad:
        raise PointError(f"stage '{name}': its output must be a feedback point, or depend on the stage through one")
    check_trainable(points)
    return output, points, leaves


@contextmanager
def _as_before(call: StageCall) -> Iterator[None]:
    """Draw the numbers that were drawn before, and leave generators and running statistics as they are."""
    on_cpu, on_gpu = call.random
    buffers = [buffer for module in call.stage.modules for buffer in module.buffers()]
    copies = [buffer.clone() for buffer in buffers]
    with torch.random.fork_rng(devices=[] if on_gpu is None else [torch.cuda.current_device()]):
        torch.set_rng_state(on_cpu)
        if on_gpu is not None:
            torch.cuda.set_rng_state(on_gpu)
        yield
    for buffer, copy in zip(buffers, copies, strict=True):
        buffer.data.copy_(copy)  # through `.data`, for it does not count as a write: a graph may hold the buffer


def _parameters(call: StageCall) -> list[nn.Parameter]:
    found = (parameter for module in call.stage.modules for parameter in module.parameters())
    return list(dict.fromkeys(parameter for parameter in found if parameter.requires_grad))
