"""Segments: parts of a model that run without a graph, and again with one once their signals are known."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from dfa.errors import PointError
from dfa.hooks.targets import find_error_tensors
from dfa.patterns import find_modules, inner_model, wrapped_module


@dataclass(frozen=True)
class Segment:
    """Modules that run one after the other, the last of which returns nothing that a gradient could cross."""

    name: str
    modules: list[nn.Module]


def find_segments(
    model: nn.Module,
    points: str | Sequence[str],
    error_at: str | Sequence[str],
    patterns: str | Sequence[str] | None,
) -> list[Segment]:
    """Find the modules that `patterns` name; without patterns, one segment for each point.

    In a plain `nn.Sequential` the segment of a point is the run of modules from the point before it; a point elsewhere
    is a segment by itself.

    Raises:
        PointError: a pattern matches nothing, a segment holds no point, a point lies in no segment, an error tensor
            lies inside a segment, or the model is compiled as a whole, or its wrapper looks for unused parameters.
    """
    if wrapped_module(model) is not None:
        raise PointError("memory='recompute' runs segments one by one: compile the segments, not the whole model")
    if isinstance(model, nn.parallel.DistributedDataParallel) and model.find_unused_parameters:
        raise PointError(
            "memory='recompute' runs after the loss what DistributedDataParallel(find_unused_parameters=True) has taken"
            " for unused by then: leave that out, or take memory='keep'"
        )
    point_modules = find_modules(model, points)
    if patterns is not None:
        segments = [Segment(name, [module]) for name, module in find_modules(model, patterns).items()]
    else:
        segments = [_segment_of(name, set(point_modules), model) for name in point_modules]
    held = {segment.name: {part for module in segment.modules for part in module.modules()} for segment in segments}
    inside: set[nn.Module] = set().union(*held.values())
    if outside := [name for name, module in point_modules.items() if module not in inside]:
        raise PointError(f"feedback point(s) in no segment: {', '.join(outside)}")
    for segment in segments:
        if segment.modules[0] in (model, inner_model(model)):
            raise PointError("the whole model cannot be a segment: the error must arise outside of it")
        if held[segment.name].isdisjoint(point_modules.values()):
            raise PointError(f"segment '{segment.name}' holds no feedback point")
    ends = {segment.modules[-1] for segment in segments}
    for name, module in find_error_tensors(model, error_at)[0].items():
        if module in inside - ends:
            raise PointError(f"error tensor '{name}' lies inside a segment")
    return segments


def _segment_of(point: str, points: set[str], model: nn.Module) -> Segment:
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
    return Segment(point, modules or [inner.get_submodule(point)])
