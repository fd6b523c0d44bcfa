"""Hooks on a model: they find the feedback points and error tensors of each forward pass and cut the graph there."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from dfa.errors import PointError
from dfa.hooks.outputs import detach_all, first_tensor, replace_first
from dfa.hooks.points import ForwardRecord, Mode, Point, Recorder
from dfa.patterns import find_modules


class FeedbackHooks:
    """Forward hooks on the feedback points and error tensors of a model.

    In mode "cut" a point hands on a detached copy of its output, so that no gradient crosses it, and the error is sent
    from the error tensor to the points; "recompute" cuts at points and leaves error tensors alone; in mode "observe"
    both are recorded and left on the graph; in mode "off", and whenever gradients are disabled, nothing happens.

    Args:
        model: any module; it is not changed, only hooked.
        points: patterns of the feedback points' names.
        error_at: pattern(s) of the modules whose output is an error tensor; "" is the model's own output.
            A point belongs to the next error tensor that is computed. None: the rule needs no error.
        silent: patterns of modules whose output is cut and which receive no signal.
        recorder: what is kept of training passes; by default activations on their graph, for a rule without error.

    Attributes:
        mode: see above.
        points: names of the feedback points.
        error_names: names of the modules whose output is an error tensor.
        records: forward passes that reached an error tensor and that no backward has used.

    Raises:
        PointError: a pattern matches nothing; in a forward pass, an output without a tensor that could have a gradient,
            or a feedback point after the last error tensor.
    """

    def __init__(
        self,
        model: nn.Module,
        points: str | Sequence[str],
        error_at: str | Sequence[str] | None,
        silent: str | Sequence[str] = (),
        recorder: Recorder | None = None,
    ) -> None:
        self.mode: Mode = "cut"
        self.records: list[ForwardRecord] = []
        self._recorder = Recorder() if recorder is None else recorder
        self._pending: list[Point] = []
        point_names = {module: name for name, module in find_modules(model, points).items()}
        error_modules = {} if error_at is None else find_modules(model, error_at)
        error_names = {module: name for name, module in error_modules.items()}
        silent_modules = list(find_modules(model, silent).values())
        # Names only: torch.compile traces the hooks, and must not meet the model it compiles in what they read.
        self.points = list(point_names.values())
        self.error_names = list(error_modules)
        self._reached = dict.fromkeys(self.points, False)
        self._handles = [model.register_forward_pre_hook(self._start)]
        for module in dict.fromkeys([*silent_modules, *point_names, *error_names]):
            hook = self._hook(module in silent_modules, point_names.get(module), error_names.get(module))
            self._handles.append(module.register_forward_hook(hook))
        self._handles.append(model.register_forward_hook(self._finish))
        self._handles += self._recorder.attach(model, lambda: self.mode)

    @contextmanager
    def switched(self, mode: Mode) -> Iterator[None]:
        """Run a block in another mode, with its own empty list of records; the old one is put back after."""
        before = self.mode, self.records, self._pending
        self.mode, self.records, self._pending = mode, [], []
        try:
            yield
        finally:
            self.mode, self.records, self._pending = before

    def record_with(self, recorder: Recorder) -> None:
        """Keep something else of training passes from now on; the recorder has no hooks of its own."""
        self._recorder = recorder

    def pending_points(self) -> list[Point]:
        """Return the outputs of feedback points since the last error tensor."""
        return self._pending

    def discard(self) -> None:
        """Forget all passes that no backward has used."""
        self.records, self._pending = [], []
        self._recorder.reset()

    def close(self) -> None:
        """Take the hooks off the model."""
        self.mode = "off"  # a compiled model may keep the hooks it was traced with, but notices the mode
        for handle in self._handles:
            handle.remove()
        self.discard()

    def check_all_reached(self) -> None:
        """Check that all feedback points have run.

        Raises:
            PointError: a point was reached by no forward pass with gradients since the rule was made.
        """
        if missing := [name for name, reached in self._reached.items() if not reached]:
            raise PointError(f"feedback point(s) never reached by a forward pass: {', '.join(missing)}")

    def _start(self, module: nn.Module, arguments: Any) -> None:
        self._pending = []  # points of a forward pass that raised half-way must not end up in this one
        self._recorder.reset()
        if self.mode == "cut" and self.points and self._recorder.needs_gradients():
            self._recorder.start()

    def _finish(self, module: nn.Module, arguments: Any, output: Any) -> None:
        self._recorder.reset()
        if self._pending:
            names = ", ".join(dict.fromkeys(point.name for point in self._pending))
            self._pending = []
            raise PointError(f"feedback point(s) above the error tensor '{', '.join(self.error_names)}': {names}")

    def _hook(self, silent: bool, point: str | None, error: str | None) -> Callable[[nn.Module, Any, Any], Any]:
        """Make the hook of a module, which is cut first where it is a point and an error tensor."""

        def hook(module: nn.Module, arguments: Any, output: Any) -> Any:
            if self.mode == "off" or not self._recorder.needs_gradients():
                return None
            if silent and self.mode != "observe":
                output = detach_all(output)
            if point is not None:
                output = self._at_point(point, output)
            if error is not None and self.mode != "recompute":
                output = self._at_error(error, output)
            return output

        return hook

    def _at_point(self, name: str, output: Any) -> Any:
        activation = first_tensor(output, f"feedback point '{name}'")
        self._reached[name] = True
        if self.mode == "cut":
            kept, handed_on = self._recorder.at_point(name, activation)
        elif self.mode == "recompute":
            kept, handed_on = Point(name, activation), activation.detach()
        else:  # a copy goes on, lest an operation in place further up changes what is observed
            kept, handed_on = Point(name, activation), activation.clone()
        if self.error_names:
            self._pending.append(kept)
        if self.mode != "observe":
            output = detach_all(output)  # or gradient would leak past the point through the other tensors
        return replace_first(output, handed_on)

    def _at_error(self, name: str, output: Any) -> Any:
        tensor = first_tensor(output, f"error tensor '{name or 'model output'}'")
        points, self._pending = self._pending, []
        if self.mode == "observe":
            self.records.append(ForwardRecord(name, points, tensor))
            return output
        record, passed_on = self._recorder.at_error(name, tensor, points)
        self.records.append(record)
        return replace_first(output, passed_on)
