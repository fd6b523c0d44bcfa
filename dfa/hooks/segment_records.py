"""What one forward pass through segments leaves behind, to run each of them again."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dfa.errors import PointError
from dfa.hooks.module_state import ModuleState
from dfa.hooks.points import SECOND_BACKWARD, ForwardRecord, Point
from dfa.hooks.segments import Segment

PREVIOUS_OUTPUT = torch.empty(0)
"""Stands in a call's arguments for the output of the call before it."""


@dataclass
class SampledPoint(Point):
    """A point of a segment, with some entries of its activation, which tell whether a second run does the same."""

    sample: Tensor = field(default_factory=lambda: torch.empty(0))


@dataclass
class SegmentCall:
    """Arguments and state of one run of a segment, to run it again as it ran.

    Attributes:
        arguments: positional and keyword arguments, with PREVIOUS_OUTPUT for the output of the call before.
        versions: arguments kept and the version of each, which every operation in place increases.
        random: state of the generators, on the CPU and on the GPU in use.
        autocast: device type, data type and whether it was enabled.
        state: of the segment's modules.
        points: outputs of feedback points, as shapes without content.
    """

    segment: Segment
    arguments: tuple[tuple[Any, ...], dict[str, Any]]
    versions: list[tuple[Tensor, int]]
    random: tuple[Tensor, Tensor | None]
    autocast: tuple[str, torch.dtype, bool]
    state: ModuleState
    points: list[SampledPoint] = field(default_factory=list)


@dataclass
class SegmentedRecord(ForwardRecord):
    """A forward pass whose points lie in segments and hold no activations.

    Attributes:
        output: the error tensor on the graph of the modules after the last segment.
        leaf: its detached copy that all that follows is computed from; `leaf.grad` will be the error.
        calls: of the segments, in order.
    """

    output: Tensor = field(default_factory=lambda: torch.empty(0))
    leaf: Tensor = field(default_factory=lambda: torch.empty(0))
    calls: list[SegmentCall] = field(default_factory=list)

    def passed_on(self) -> Tensor:
        """Return what takes the error tensor's place; its graph keeps this record alive."""
        passed_on: Tensor = _HoldRecord.apply(self, self.leaf)
        return passed_on

    def release(self) -> None:
        """Let go of all that training has needed, which the loss would keep alive."""
        self.output, self.calls, self.leaf.grad = torch.empty(0), [], None


class _HoldRecord(torch.autograd.Function):
    """The identity on an error tensor's leaf; this node keeps the record of the pass alive, as long as the graph."""

    @staticmethod
    def forward(ctx: Any, record: SegmentedRecord, leaf: Tensor) -> Tensor:
        ctx.record = record
        ctx.sends_errors = True
        return leaf.detach()  # a view could not be written to

    @staticmethod
    def backward(ctx: Any, *errors: Tensor) -> Any:
        if ctx.record.error_received:
            raise PointError(SECOND_BACKWARD)
        if not ctx.record.arrival():
            ctx.record.error_received = True  # a plain backward has come this far, and what lies below has no gradient
        return None, errors[0]
