"""Hooks on a model: they find the feedback points and error tensors of each forward pass and cut the graph there."""

import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from dfa.errors import PointError
from dfa.hooks.outputs import detach_all, field_tensor, first_tensor, replace_field, replace_first
from dfa.hooks.placing import Hook, occupy, vacate
from dfa.hooks.points import ForwardRecord, Mode, Point, Recorder
from dfa.hooks.surroundings import check_no_transform, is_sharded, refuse_cut_checkpoints
from dfa.hooks.targets import Points, find_error_tensors, find_targets, patterns_of
from dfa.patterns import find_modules


class FeedbackHooks:
    """Forward hooks on the feedback points and error tensors of a model.

    In mode "cut" a point hands on a detached copy of its output, so that no gradient crosses it, and the error is sent
    from the error tensor to the points; "recompute" cuts at points and leaves error tensors alone; in mode "observe"
    both are recorded and left on the graph; "describe" records both and cuts at points; in mode "off", and whenever
    gradients are disabled, nothing happens.

    Args:
        model: any module; it is not changed, only hooked.
        points: patterns of the feedback points' names, or a mapping from patterns to the error tensor of each.
        error_at: pattern(s) of the modules whose output is an error tensor, or names of fields of the model's output;
            "" is the model's own output. A point belongs to the next error tensor that is computed, unless `points`
            says to which. None: the rule needs no error.
        silent: patterns of modules whose output is cut and which receive no signal.
        recorder: what is kept of training passes; by default activations on their graph, for a rule without error.

    Attributes:
        mode: see above.
        points: names of the feedback points.
        error_names: names of the modules, or fields, that are an error tensor.
        compiled_pass: whether an error tensor was reached inside a compiled graph since the last backward.

    Raises:
        PointError: a pattern matches nothing, or the model has a rule already; in a forward pass, an output without a
            tensor that could have a gradient, a feedback point after the last error tensor, an error tensor without a
            point of its own, or nothing to learn between the two.
    """

    def __init__(
        self,
        model: nn.Module,
        points: Points,
        error_at: str | Sequence[str] | None,
        silent: str | Sequence[str] = (),
        recorder: Recorder | None = None,
    ) -> None:
        self.mode: Mode = "cut"
        self.compiled_pass = False
        self._passes: list[Callable[[], ForwardRecord | None]] = []
        self._recorder = Recorder() if recorder is None else recorder
        self._pending: list[Point] = []
        self._in_pass = self._seen = False
        self._sharded = is_sharded(model)
        self._first_pass: list[RemovableHandle] = []
        self._going_backward = self._plain_backward_told = False
        point_names = {module: name for name, module in find_modules(model, patterns_of(points)).items()}
        error_modules, fields = ({}, {}) if error_at is None else find_error_tensors(model, error_at)
        error_names = {module: name for name, module in error_modules.items()}
        silent_modules = list(find_modules(model, silent).values())
        # Names only: torch.compile traces the hooks, and must not meet the model it compiles in what they read.
        self.points = list(point_names.values())
        self.error_names = [*error_modules, *fields]
        self._outputs = {"", *fields} - set(self.points)
        self._targets = find_targets(model, points)
        self._reached = dict.fromkeys(self.points, False)
        occupy(model)
        self._vacate = lambda: vacate(model)
        self._any_frozen = lambda: not all(parameter.requires_grad for parameter in model.parameters())
        self._handles = [model.register_forward_pre_hook(Hook(self._start))]
        for module in dict.fromkeys([*silent_modules, *point_names, *error_names, *([model] if fields else [])]):
            names = ([error_names[module]] if module in error_names else []), fields if module is model else {}
            hook = self._hook(module in silent_modules, point_names.get(module), *names)
            self._handles.append(module.register_forward_hook(Hook(hook)))
        self._handles.append(model.register_forward_hook(Hook(self._finish)))
        self._handles += self._recorder.attach(model, lambda: self.mode)

    @property
    def records(self) -> list[ForwardRecord]:
        """Forward passes that reached an error tensor and that no backward has used; they go with their graph."""
        return [record for alive in self._passes if (record := alive()) is not None]

    def forget(self, used: Sequence[ForwardRecord]) -> None:
        """Forget some of the forward passes."""
        kept = [record for record in self.records if not any(record is other for other in used)]
        self._passes = [weakref.ref(record) for record in kept]
        self.compiled_pass = False

    @contextmanager
    def switched(self, mode: Mode) -> Iterator[None]:
        """Run a block in another mode, with its own empty list of records; the old one is put back after."""
        before = self.mode, self._passes, self._pending, self._in_pass
        self.mode, self._passes, self._pending = mode, [], []
        try:
            yield
        finally:
            self.mode, self._passes, self._pending, self._in_pass = before

    @contextmanager
    def going_backward(self) -> Iterator[None]:
        """Run a block in which errors may arrive; elsewhere someone has called `loss.backward()` itself."""
        self._going_backward = True
        try:
            yield
        finally:
            self._going_backward = False

    def record_with(self, recorder: Recorder) -> None:
        """Keep something else of training passes from now on; the recorder has no hooks of its own."""
        self._recorder = recorder

    def pending_points(self) -> list[Point]:
        """Return the outputs of feedback points since the last error tensor."""
        return self._pending

    def discard(self) -> None:
        """Forget all passes that no backward has used."""
        self._passes, self._pending, self._in_pass, self.compiled_pass = [], [], False, False
        self._recorder.reset()

    def close(self) -> None:
        """Take the hooks off the model."""
        self.mode = "off"  # a compiled model may keep the hooks it was traced with, but notices the mode
        for handle in self._handles:
            handle.remove()
        self._vacate()
        self._vacate = lambda: None  # the model may have another rule when this one is closed again
        self.discard()

    def check_all_reached(self) -> None:
        """Check that all feedback points have run.

        Raises:
            PointError: a point was reached by no forward pass with gradients since the rule was made.
        """
        if missing := [name for name, reached in self._reached.items() if not reached]:
            raise PointError(f"feedback point(s) never reached by a forward pass: {', '.join(missing)}")

    def check_backward(self) -> bool:
        """Warn, once, where a backward pass was not begun by the rule; return whether it was."""
        if not (self._going_backward or self._plain_backward_told):
            self._plain_backward_told = True
            warnings.warn(
                "loss.backward() was called on a model that has a rule: call rule.backward(loss), or close() the rule",
                UserWarning,
                stacklevel=3,
            )
        return self._going_backward

    def _start(self, module: nn.Module, arguments: Any) -> None:
        self._pending = []  # points of a forward pass that raised half-way must not end up in this one
        self._in_pass = True
        self._recorder.reset()
        self._end_first_pass()
        if self.points and self.mode != "off" and not torch.compiler.is_compiling():
            self._check_surroundings(module)
        if self.mode == "cut" and self.points and self._recorder.needs_gradients():
            self._recorder.start()

    def _end_first_pass(self) -> None:
        if self._first_pass:
            for handle in self._first_pass:
                handle.remove()
            self._first_pass = []

    def _check_surroundings(self, model: nn.Module) -> None:
        check_no_transform()
        if not self._seen and self.mode == "cut" and torch.is_grad_enabled():
            self._seen = True
            if is_sharded(model) and not self._sharded:
                raise PointError("the model was sharded after the rule was made: first fully_shard, then the rule")
            self._first_pass = refuse_cut_checkpoints(model)

    def _finish(self, module: nn.Module, arguments: Any, output: Any) -> None:
        self._recorder.reset()
        self._end_first_pass()
        self._in_pass = False
        if self._pending:
            names = ", ".join(dict.fromkeys(point.name for point in self._pending))
            self._pending = []
            raise PointError(f"feedback point(s) above the error tensor '{', '.join(self.error_names)}': {names}")

    def _hook(
        self, silent: bool, point: str | None, errors: Sequence[str], fields: Mapping[str, str]
    ) -> Callable[[nn.Module, Any, Any], Any]:
        """Make the hook of a module, which is cut first where it is a point and an error tensor."""

        def hook(module: nn.Module, arguments: Any, output: Any) -> Any:
            if self.mode == "off" or not self._recorder.needs_gradients():
                return None
            if silent and self.mode != "observe":
                output = detach_all(output)
            if point is not None:
                output = self._at_point(point, output)
            if self.mode != "recompute":
                for name in errors:
                    tensor = first_tensor(output, f"error tensor '{name or 'model output'}'")
                    output = replace_first(output, self._at_error(name, tensor))
                for name, modules in fields.items():
                    tensor = field_tensor(output, name, modules)
                    output = replace_field(output, name, self._at_error(name, tensor))
            return output

        return hook

    def _at_point(self, name: str, output: Any) -> Any:
        activation = first_tensor(output, f"feedback point '{name}'")
        self._reached[name] = True
        if self.mode == "cut":
            kept, handed_on = self._recorder.at_point(name, activation)
        elif self.mode == "recompute":
            kept, handed_on = self._recorder.at_point_of_part(name, activation)
        elif self.mode == "describe":
            kept, handed_on = Point(name, activation), activation.detach()
        else:
            kept, handed_on = self._recorder.observe_point(name, activation)
        if self.error_names:
            self._pending.append(kept)
        if self.mode != "observe":
            output = detach_all(output)  # or gradient would leak past the point through the other tensors
        return replace_first(output, handed_on)

    def _at_error(self, name: str, tensor: Tensor) -> Tensor:
        points, self._pending = self._points_of(name)
        if self.mode in ("observe", "describe"):
            observed = self.mode == "observe"
            record = (
                self._recorder.observe_error(name, tensor, points) if observed else ForwardRecord(name, points, tensor)
            )
            self._passes.append(lambda: record)
            return tensor
        self._check_points(name, tensor, points)
        record, passed_on = self._recorder.at_error(name, tensor, points)
        if torch.compiler.is_compiling():
            self.compiled_pass = True
        else:
            record.arrival = self.check_backward
            self._passes = [alive for alive in self._passes if alive() is not None]
            self._passes.append(weakref.ref(record))
        return passed_on

    def _points_of(self, error: str) -> tuple[list[Point], list[Point]]:
        """Divide the pending points into those of an error tensor and those of later ones."""
        if not self._targets:
            return self._pending, []
        own = [point for point in self._pending if self._targets[point.name] == error]
        return own, [point for point in self._pending if self._targets[point.name] != error]

    def _check_points(self, name: str, tensor: Tensor, points: Sequence[Point]) -> None:
        """Check that an error tensor has points, and that the model's output is not just the topmost one.

        All is cut at the points, so an output without gradient depends on no parameter that learns above them. A module
        inside the model may be named as error tensor there, as the end of a residual path: more lies above it.
        """
        label = name or "model output"
        if not points and self._in_pass:  # where a checkpoint runs parts again there is no pass
            if not any(self._reached.values()):
                raise PointError(
                    f"feedback point(s) never reached before error tensor '{label}': {', '.join(self.points)}"
                )
            raise PointError(
                f"error tensor '{label}' has no feedback point of its own, for a point belongs to the next error tensor"
                " that is computed: name the points of each, points={pattern: error tensor}, or take one error"
            )
        if points and not tensor.requires_grad and name in self._outputs and not self._any_frozen():
            raise PointError(
                f"nothing that could learn lies between feedback point '{points[-1].name}' and error tensor '{label}',"
                " which thus has no gradient: leave the point out, so that its module learns from the true error"
            )
