"""Stages: parts of a model that are run without a graph, to be run again with one when their signals are known."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from dfa.errors import PointError
from dfa.hooks.points import Pass, Point, Taps, first_tensor, map_tensors
from dfa.patterns import find_modules, inner_model

RUNNING = torch.empty(0)
"""Stands in a call's arguments for the output of the call before it."""


@dataclass(frozen=True)
class Stage:
    """Modules that run one after the other, the last of which puts out nothing that gradient could cross."""

    name: str
    modules: list[nn.Module]


@dataclass
class StageCall:
    """What must be known to run a stage again as it ran.

    Attributes:
        arguments: positional and keyword arguments, with RUNNING for the output of the call before.
        versions: kept arguments and how often each had been written to.
        random: state of the generators, on the CPU and on the GPU in use.
        autocast: device type, data type and whether it was on.
        points: feedback points that fired, as shapes without content.
    """

    stage: Stage
    arguments: tuple[tuple[Any, ...], dict[str, Any]]
    versions: list[tuple[Tensor, int]]
    random: tuple[Tensor, Tensor | None]
    autocast: tuple[str, torch.dtype, bool]
    points: list[Point] = field(default_factory=list)


@dataclass
class StagedPass(Pass):
    """A pass whose points lie in stages and hold no activations.

    Attributes:
        output: of the module at which the error is taken, on the graph above the stages.
        leaf: what went on instead; its `.grad` will be the error.
        calls: of the stages, in order.
    """

    output: Tensor = field(default_factory=lambda: torch.empty(0))
    leaf: Tensor = field(default_factory=lambda: torch.empty(0))
    calls: list[StageCall] = field(default_factory=list)


def find_stages(model: nn.Module, points: Sequence[str], patterns: str | Sequence[str] | None) -> list[Stage]:
    """The modules that `patterns` name; without patterns, one stage for each point.

    In a plain `nn.Sequential` the stage of a point is the run of modules from the point before it; a point elsewhere is
    a stage by itself.

    Raises:
        PointError: a pattern matches nothing, a stage holds no point, or a point lies in no stage.
    """
    if patterns is not None:
        stages = [Stage(name, [module]) for name, module in find_modules(model, patterns).items()]
    else:
        stages = [_stage_of(name, set(points), model) for name in points]
    inside = {id(part) for stage in stages for module in stage.modules for part in module.modules()}
    modules = find_modules(model, points)
    if outside := [name for name, module in modules.items() if id(module) not in inside]:
        raise PointError(f"feedback point(s) in no stage: {', '.join(outside)}")
    of_points = {id(module) for module in modules.values()}
    for stage in stages:
        if stage.modules[0] is model or stage.modules[0] is inner_model(model):
            raise PointError("the whole model cannot be a stage: the error must arise outside of it")
        if not any(id(part) in of_points for module in stage.modules for part in module.modules()):
            raise PointError(f"stage '{stage.name}' holds no feedback point")
    return stages


def _stage_of(point: str, points: set[str], model: nn.Module) -> Stage:
    inner = inner_model(model)
    prefix, _, child = point.rpartition(".")
    parent = inner.get_submodule(prefix) if point else inner
    modules: list[nn.Module] = []
    if point and type(parent) is nn.Sequential:
        for name, module in parent.named_children():
            modules.append(module)
            if name == child:
                break
            if f"{prefix}.{name}".lstrip(".") in points:
                modules = []
    return Stage(point, modules or [inner.get_submodule(point)])


class StagedTaps(Taps):
    """Taps that also run the stages of a model without a graph, and note how to run them again.

    A stage whose input is the output of the stage before needs nothing kept; any other keeps its input.

    Raises:
        PointError: see `find_stages`; a model that is compiled as a whole; an error tensor inside a stage.
    """

    def __init__(
        self,
        model: nn.Module,
        points: str | Sequence[str],
        error_at: str | Sequence[str],
        silent: str | Sequence[str] = (),
        stages: str | Sequence[str] | None = None,
    ) -> None:
        super().__init__(model, points, error_at, silent)
        if isinstance(getattr(model, "_orig_mod", None), nn.Module):
            self.close()
            raise PointError("memory='recompute' runs stages one by one: compile the stages, not the whole model")
        self._calls: list[StageCall] = []
        self._entered: list[nn.Module] = []
        self._running: Tensor | None = None
        self._running_version = 0
        try:
            self.stages = find_stages(model, self.points, stages)
            self._check_errors(model, error_at)
        except PointError:
            self.close()
            raise
        self._places = {
            id(module): (stage, index) for stage in self.stages for index, module in enumerate(stage.modules)
        }
        for stage in self.stages:
            for module in stage.modules:
                self._hooks.append(module.register_forward_pre_hook(self._enter, prepend=True, with_kwargs=True))
                self._hooks.append(module.register_forward_hook(self._leave, prepend=True, always_call=True))

    def discard(self) -> None:
        super().discard()
        self._calls, self._running = [], None

    @property
    def _active(self) -> bool:
        return super()._active or bool(self._entered)

    def _keep(self, name: str, activation: Tensor) -> None:
        if self.mode != "cut":
            super()._keep(name, activation)
            return
        point = Point(name, torch.empty_like(activation, device="meta"))
        self._open.append(point)
        self._calls[-1].points.append(point)

    def _cross(self, name: str, tensor: Tensor, points: list[Point]) -> Tensor:
        leaf = tensor.detach().requires_grad_()
        self.passes.append(StagedPass(name, points, output=tensor, leaf=leaf, calls=self._calls))
        self._calls, self._running = [], None
        return leaf

    def _start(self, module: nn.Module, arguments: Any) -> None:
        if self._entered:  # a pass was interrupted inside a stage by something that is not an Exception
            self._entered = []
            torch.set_grad_enabled(True)
        self._calls, self._running = [], None
        super()._start(module, arguments)

    def _finish(self, module: nn.Module, arguments: Any, output: Any) -> None:
        self._calls, self._running = [], None
        super()._finish(module, arguments, output)

    def _enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self.mode != "cut" or not torch.is_grad_enabled():
            return
        stage, index = self._places[id(module)]
        if index == 0:
            self._calls.append(self._begin(stage, args, kwargs))
        elif not (self._calls and self._calls[-1].stage is stage and args and self._is_running(args[0])):
            raise PointError(f"stage '{stage.name}': its modules were not run one after the other")
        self._entered.append(module)
        torch.set_grad_enabled(False)

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        if self._entered and self._entered[-1] is module:
            self._entered.pop()
            torch.set_grad_enabled(True)
            self._running = None if output is None else first_tensor(output, "output of a stage")
            self._running_version = 0 if self._running is None else self._running._version

    def _begin(self, stage: Stage, args: tuple[Any, ...], kwargs: dict[str, Any]) -> StageCall:
        versions: list[tuple[Tensor, int]] = []
        device = "cpu"

        def hold(tensor: Tensor) -> Any:
            nonlocal device
            device = tensor.device.type if device == "cpu" else device
            if self._is_running(tensor):
                return RUNNING
            versions.append((tensor, tensor._version))
            return tensor

        arguments = map_tensors(args, hold), map_tensors(kwargs, hold)
        random = torch.get_rng_state(), torch.cuda.get_rng_state() if device == "cuda" else None
        autocast = device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)
        return StageCall(stage, arguments, versions, random, autocast)

    def _is_running(self, value: Any) -> bool:
        """Whether this is what the last stage put out, unchanged (hooks may have detached it)."""
        running = self._running
        return (
            running is not None
            and isinstance(value, Tensor)
            and not value.requires_grad
            and value.data_ptr() == running.data_ptr()
            and value.shape == running.shape
            and value.stride() == running.stride()
            and value.dtype == running.dtype
            and value._version == self._running_version
        )

    def _check_errors(self, model: nn.Module, error_at: str | Sequence[str]) -> None:
        inner = {id(part) for stage in self.stages for module in stage.modules for part in module.modules()} - {
            id(stage.modules[-1]) for stage in self.stages
        }
        for name, module in find_modules(model, error_at).items():
            if id(module) in inner:
                raise PointError(f"error tensor '{name}' lies inside a stage")
