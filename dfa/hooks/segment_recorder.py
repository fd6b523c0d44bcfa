"""Recording a forward pass whose segments run without a graph."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils.hooks import RemovableHandle

from dfa.errors import PointError
from dfa.hooks.leaks import InnerResults
from dfa.hooks.lone_points import outside_of_calls
from dfa.hooks.module_state import ModuleState
from dfa.hooks.outputs import first_tensor, map_tensors
from dfa.hooks.placing import Hook
from dfa.hooks.points import ForwardRecord, Mode, Point, Recorder
from dfa.hooks.segment_records import PREVIOUS_OUTPUT, SampledPoint, SegmentCall, SegmentedRecord
from dfa.hooks.segments import Segment


class SegmentRecorder(Recorder):
    """Runs segments without a graph, and records how to run them again.

    A segment whose input is the output of the segment before needs nothing kept; any other keeps its input.

    Gradients are disabled by a hook before a segment's module and enabled by one after it, for a model's code leaves no
    other place around the call; `reset`, before the next pass, mends what an interrupt left.

    Raises:
        PointError: in a forward pass, the modules of a segment do not run one after the other.
    """

    def __init__(self, segments: Sequence[Segment]) -> None:
        super().__init__()
        self._positions = {
            module: (segment, index) for segment in segments for index, module in enumerate(segment.modules)
        }
        self._running: list[nn.Module] = []
        self._calls: list[SegmentCall] = []
        self._state: ModuleState | None = None
        self._previous: Tensor | None = None
        self._previous_version, self._in_pass = 0, False
        self._inspected: set[tuple[nn.Module, bool]] = set()
        self._inner: InnerResults | None = None

    def attach(self, model: nn.Module, mode: Callable[[], Mode]) -> list[RemovableHandle]:
        def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if self._in_pass and mode() == "cut" and torch.is_grad_enabled():
                self._enter(module, args, kwargs)

        handles = []
        for module in self._positions:
            handles.append(module.register_forward_pre_hook(Hook(enter), prepend=True, with_kwargs=True))
            handles.append(module.register_forward_hook(Hook(self._leave), always_call=True))
        return handles

    def start(self) -> None:
        if self._calls or self._running:
            raise PointError(
                "the model calls itself in the middle of its forward pass, which does not go with memory='recompute':"
                " do so under torch.no_grad(), or take memory='keep'"
            )
        self._in_pass = True

    def needs_gradients(self) -> bool:
        return super().needs_gradients() or bool(self._running)

    def reset(self) -> None:
        if self._running:  # a pass was interrupted inside a segment by something that is not an Exception
            self._running = []
            torch.set_grad_enabled(True)
        if self._inner is not None:
            self._inner.stop()
        self._calls, self._state, self._previous, self._inner, self._in_pass = [], None, None, None, False

    def check_alone(self, name: str) -> None:
        raise outside_of_calls(name, "memory='recompute'")

    def at_point(self, name: str, activation: Tensor) -> tuple[Point, Tensor]:
        if not self._running:
            raise PointError(f"feedback point '{name}' was run outside of its segment")
        point = SampledPoint(name, torch.empty_like(activation, device="meta"), sample=_sample(activation))
        self._calls[-1].points.append(point)
        return point, activation.detach()

    def below(self, point: Point) -> Sequence[Tensor]:
        return [tensor for tensor, _ in self._calls[-1].versions]

    def learns_from(self, tensor: Tensor) -> bool:
        return tensor.requires_grad or (self._inner is not None and self._inner.depends(tensor))

    def at_point_of_part(self, name: str, activation: Tensor) -> tuple[Point, Tensor]:
        return SampledPoint(name, activation, sample=_sample(activation)), activation.detach()

    def at_error(self, name: str, tensor: Tensor, points: list[Point]) -> tuple[ForwardRecord, Tensor]:
        leaf = tensor.detach().requires_grad_()
        record = SegmentedRecord(name, points, output=tensor, leaf=leaf, calls=self._calls)
        self._calls, self._previous = [], None
        with torch.enable_grad():  # where the error tensor is the output of a segment, that has not ended yet
            return record, record.passed_on()

    def _enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        segment, index = self._positions[module]
        if index == 0:
            self._calls.append(self._begin(segment, args, kwargs))
            self._state = self._calls[-1].state  # the list is handed over where the segment's end is the error tensor
        elif not (self._calls and self._calls[-1].segment is segment and args and self._is_previous(args[0])):
            raise PointError(f"segment '{segment.name}': its modules were not run one after the other")
        inspected = not self._running and self._to_be_inspected(module)
        self._running.append(module)
        torch.set_grad_enabled(False)
        if inspected:
            self._inner = InnerResults(segment.name, module, (args, kwargs), within=index > 0)
            self._inner.start()

    def _to_be_inspected(self, module: nn.Module) -> bool:
        """Whether this is the first pass of its kind: some losses exist in training alone, or caches in a context."""
        kind = module, module.training
        fresh = kind not in self._inspected or parametrize._cache_enabled > 0
        self._inspected.add(kind)
        return fresh

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        if self._running and self._running[-1] is module:
            self._running.pop()
            torch.set_grad_enabled(True)
            if self._state is not None and module is self._positions[module][0].modules[-1]:
                self._state.end()
            self._previous = None if output is None else first_tensor(output, "output of a segment")
            self._previous_version = 0 if self._previous is None else self._previous._version
            if self._inner is not None and not self._running:
                inner, self._inner = self._inner, None
                inner.stop()
                if output is not None:
                    inner.check(output)

    def _begin(self, segment: Segment, args: tuple[Any, ...], kwargs: dict[str, Any]) -> SegmentCall:
        versions: list[tuple[Tensor, int]] = []
        device = "cpu"

        def keep(tensor: Tensor) -> Tensor:
            nonlocal device
            device = tensor.device.type if device == "cpu" else device
            if self._is_previous(tensor):
                return PREVIOUS_OUTPUT
            versions.append((tensor, tensor._version))
            return tensor

        arguments = map_tensors(args, keep), map_tensors(kwargs, keep)
        random = torch.get_rng_state(), torch.cuda.get_rng_state() if device == "cuda" else None
        autocast = device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)
        return SegmentCall(segment, arguments, versions, random, autocast, ModuleState(segment.name, segment.modules))

    def _is_previous(self, value: Any) -> bool:
        """Whether this is the output of the last segment, unchanged."""
        if self._previous is None or value is not self._previous:
            return False
        return not self._previous.requires_grad and self._previous._version == self._previous_version


def _sample(activation: Tensor) -> Tensor:
    """Copy up to four entries along each dimension."""
    return activation.detach()[tuple(slice(None, None, max(1, -(-size // 4))) for size in activation.shape)].clone()
