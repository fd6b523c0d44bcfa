"""One micro-batch in one stage: its forward pass, and its own part of the backward pass."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.distributed import Work

from dfa.base.direct import DirectRule
from dfa.base.rule import Rule
from dfa.errors import PointError
from dfa.hooks.graphs import backward_from
from dfa.hooks.neighbours import LinkedPoint
from dfa.hooks.outputs import first_tensor, map_tensors, replace_first
from dfa.hooks.points import Point
from dfa.pipeline.parts import Part
from dfa.pipeline.signals import Neighbours, StageView, stage_signals
from dfa.precision import without_autocast
from dfa.rules.highway import Highway


@dataclass
class Chunk:
    """One micro-batch.

    Attributes:
        points: of this stage, with their activations on the graph below.
        output: of this stage; in the last one, what the loss is computed from.
        loss: in the last stage.
        error_tensor: in the last stage, on the graph of the layers below it.
        leaf: its detached copy, at which the error arrives.
        encoded: the error that signals are computed from, in the last stage from its backward pass on, in others once
            `arrival` is done.
        arrival: of the error.
        entry: what the stage was given, a leaf, where signals go from point to point.
    """

    points: list[Point] = field(default_factory=list)
    output: Any = None
    loss: Tensor | None = None
    error_tensor: Tensor | None = None
    leaf: Tensor | None = None
    encoded: Tensor | None = None
    arrival: Work | None = None
    entry: Tensor | None = None


class ChunkRecorder:
    """Records micro-batches of a stage, and computes the gradients of its part from their errors.

    Args:
        rule: made on the whole model.
        part: of the model, which this stage runs.
        last: whether it is the last one.

    Attributes:
        needs_error: whether the rule sends anything to the points.

    Raises:
        PointError: see `ScheduleFeedback`.
    """

    def __init__(self, rule: Rule, part: Part, last: bool) -> None:
        self._signals = stage_signals(rule)
        if rule.model is not part.model:
            raise PointError("the rule must be made on the model that was cut, before it is cut")
        names = rule.hooks.error_names
        if len(names) > 1:
            raise PointError(f"a pipeline has one error tensor, not {len(names)}: {', '.join(names)}")
        self.needs_error = bool(names)
        self._rule, self._part, self._last = rule, part, last
        self._error_name = names[0] if names else ""
        self._expected = {name for name in rule.hooks.points if part.ends[name] == part.number}
        self._current: Chunk | None = None
        part.links_entry = isinstance(rule, Highway)
        stages = max(part.ends.values())
        if self._error_name not in part.ends:
            raise PointError(f"error tensor '{self._error_name}' is a field of the output: name a module instead")
        if self._error_name and part.ends[self._error_name] != stages:
            raise PointError(f"error tensor '{self._error_name}' lies before the last stage")
        if self._error_name and last:
            part.model.get_submodule(self._error_name).register_forward_hook(self._at_error)

    @contextmanager
    def recording(self) -> Iterator[Chunk]:
        """Record the forward pass in this block, which sets the chunk's `output`."""
        chunk = self._current = Chunk()
        try:
            with self._rule.hooks.switched("recompute"):  # cuts at points, and leaves error tensors to this class
                yield chunk
                chunk.points = list(self._rule.hooks.pending_points())
                chunk.entry, self._part.entry = self._part.entry, None
        finally:
            self._current = None
        self._check(chunk)
        if self._last and self.needs_error and not self._error_name:
            chunk.output = self._take_error(chunk, chunk.output)

    def backward_above(self, chunk: Chunk, share: float) -> None:
        """Train what lies above the error tensor, and find the error of the chunk; in the last stage."""
        if chunk.loss is None or not chunk.loss.requires_grad:
            raise PointError("the last stage needs a target, and a loss that has a gradient")
        with without_autocast(chunk.loss):
            (chunk.loss * share).backward()
            if self.needs_error:
                if chunk.leaf is None or chunk.leaf.grad is None:
                    raise PointError("the loss does not depend on the error tensor: no error arrived there")
                assert isinstance(self._rule, DirectRule)
                chunk.encoded = self._rule.encode(chunk.leaf.grad)

    def backward(self, chunk: Chunk, shapes: Sequence[Sequence[Point]], neighbours: Neighbours) -> None:
        """Add the gradients of the layers below the points and the error tensor.

        Args:
            chunk: whose error is there.
            shapes: of the points of every stage.
            neighbours: of this stage.
        """
        assert chunk.encoded is not None
        every = [point for points in shapes for point in points]
        later = [point for points in shapes[self._part.number + 1 :] for point in points]
        view = StageView(chunk.points, every, later, chunk.entry, chunk.error_tensor, neighbours)
        with without_autocast(chunk.encoded):
            signals = list(self._signals(self._rule, self._error_name, chunk.encoded, view))
            reached = [(point.activation, signal) for point, signal in zip(chunk.points, signals, strict=True)]
            if chunk.error_tensor is not None and chunk.error_tensor.requires_grad:
                assert chunk.leaf is not None and chunk.leaf.grad is not None
                reached.append((chunk.error_tensor, chunk.leaf.grad))
            backward_from(reached)

    def _at_error(self, module: nn.Module, arguments: Any, output: Any) -> Any:
        return None if self._current is None else self._take_error(self._current, output)

    def _take_error(self, chunk: Chunk, output: Any) -> Any:
        chunk.error_tensor = first_tensor(output, f"error tensor '{self._error_name or 'model output'}'")
        chunk.leaf = chunk.error_tensor.detach().requires_grad_()
        return replace_first(output, chunk.leaf)

    def _check(self, chunk: Chunk) -> None:
        found = {point.name for point in chunk.points}
        if foreign := found - self._expected:
            raise PointError(f"feedback point(s) of another stage: {', '.join(sorted(foreign))}; make the rule first")
        if self.needs_error and (missing := self._expected - found):
            raise PointError(f"feedback point(s) never reached by a forward pass: {', '.join(sorted(missing))}")
        self._rule.hooks.trainable.check(chunk.points)
        leaks: list[Tensor] = []
        map_tensors(chunk.output, lambda tensor: leaks.append(tensor) if tensor.requires_grad else None)
        if not self._last and any(not _hands_on(tensor, chunk.points) for tensor in leaks):
            raise PointError(
                f"part {self._part.number} must end at a feedback point, or what follows its last one learns nothing"
            )


def _hands_on(tensor: Tensor, points: Sequence[Point]) -> bool:
    """Whether a tensor is the copy that the topmost point hands on, where that is on a graph of its own."""
    topmost = points[-1] if points else None
    before = None if tensor.grad_fn is None else tensor.grad_fn.next_functions[0][0]
    return isinstance(topmost, LinkedPoint) and getattr(before, "variable", None) is topmost.above
