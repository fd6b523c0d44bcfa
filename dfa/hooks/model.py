"""Hooks on a model: they find the feedback points and error tensors of each forward pass and cut the graph there."""

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from dfa.errors import PointError
from dfa.hooks.arrivals import Arrivals
from dfa.hooks.cuts import AddedModules, Cuts
from dfa.hooks.first_passes import FirstPasses
from dfa.hooks.further import FurtherOutputs
from dfa.hooks.graphs import runs_again
from dfa.hooks.lone_points import LonePoints, outside_of_calls
from dfa.hooks.missing import no_point, nothing_learns_above
from dfa.hooks.outputs import detach_all, field_tensor, first_tensor, replace_field, replace_first
from dfa.hooks.passes import Passes
from dfa.hooks.placing import Hook, check_hookable, occupy, vacate
from dfa.hooks.points import ForwardRecord, Mode, Point, Recorder
from dfa.hooks.surroundings import check_no_backward_hooks, check_no_transform
from dfa.hooks.targets import Points, find_error_tensors, find_targets, patterns_of
from dfa.hooks.trainable import Trainable
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
        trainable: checks that something learns below points.
        arrivals: tells who sends the errors that arrive.
        lone_points: those that ran in parts of the model that are called by themselves.
        compiled_pass: whether an error tensor was reached inside a compiled graph since the last backward.

    Raises:
        PointError: a pattern matches nothing, a module is scripted, or the model has a rule already; in a forward pass,
            an output without a tensor that could have a gradient, a feedback point after the last error tensor, an
            error tensor without a point of its own, or nothing to learn between the two.
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
        self._records: list[Callable[[], ForwardRecord | None]] = []
        self._recorder = Recorder() if recorder is None else recorder
        self._passes = Passes()
        self.arrivals = Arrivals()
        self._by_parts, self.lone_points = False, LonePoints(self.arrivals)
        self._first_passes = FirstPasses(model)
        self._further = FurtherOutputs(self.arrivals)
        point_modules, silent_modules = find_modules(model, patterns_of(points)), find_modules(model, silent)
        point_names = {module: name for name, module in point_modules.items()}
        error_modules, fields = ({}, {}) if error_at is None else find_error_tensors(model, error_at)
        error_names = {module: name for name, module in error_modules.items()}
        silent_names = {module: name for name, module in silent_modules.items()}
        # Names only: torch.compile traces the hooks, and must not meet the model it compiles in what they read.
        self.points = list(point_names.values())
        self.error_names = [*error_modules, *fields]
        self._outputs = {"", *fields} - set(self.points)
        self._any_inner = not self._outputs.issuperset(self.error_names)
        self._targets = find_targets(model, points)
        self._added = AddedModules(model, [patterns_of(points), silent])
        self._cuts = Cuts(model, point_modules, silent_modules)
        self.trainable = Trainable(model, point_modules)
        check_hookable({"": model, **point_modules, **silent_modules, **error_modules})
        occupy(model, [*point_names, *silent_names])
        self._vacate = lambda: vacate(model)
        self._is_evaluation = lambda: self._passes.is_evaluation(model)
        self._any_frozen = lambda: not all(parameter.requires_grad for parameter in model.parameters())
        self._handles: list[RemovableHandle] = []
        try:
            self._handles.append(model.register_forward_pre_hook(Hook(self._start)))
            for module in dict.fromkeys([*silent_names, *point_names, *error_names, *([model] if fields else [])]):
                names = ([error_names[module]] if module in error_names else []), fields if module is model else {}
                hook = self._hook(silent_names.get(module), point_names.get(module), *names)
                self._handles.append(module.register_forward_hook(Hook(hook)))
            self._handles.append(model.register_forward_hook(Hook(self._check_end)))
            self._handles.append(model.register_forward_hook(Hook(self._end), always_call=True))
            self._handles += self._recorder.attach(model, lambda: self.mode)
        except BaseException:
            self.close()  # or the model would stay cut, with nothing to close
            raise

    @property
    def records(self) -> list[ForwardRecord]:
        """Forward passes that reached an error tensor and that no backward has used; they go with their graph."""
        return [record for alive in self._records if (record := alive()) is not None]

    def forget(self, used: Sequence[ForwardRecord]) -> None:
        """Forget some of the forward passes."""
        kept = [record for record in self.records if not any(record is other for other in used)]
        self._records = [weakref.ref(record) for record in kept]
        self.compiled_pass = False

    @contextmanager
    def switched(self, mode: Mode) -> Iterator[None]:
        """Run a block in another mode, with its own empty list of records; the old one is put back after."""
        before = self.mode, self._records, self._passes, self._by_parts
        self.mode, self._records, self._passes = mode, [], Passes()
        try:
            yield
        finally:
            self.mode, self._records, self._passes, self._by_parts = before

    def record_with(self, recorder: Recorder) -> None:
        """Keep something else of training passes from now on; the recorder has no hooks of its own."""
        self._recorder = self._recorder.replaced_by(recorder)

    def is_training_pass(self) -> bool:
        """Whether what runs now is recorded, to be trained or measured."""
        return self.mode in ("cut", "observe") and self._recorder.needs_gradients()

    def pending_points(self) -> list[Point]:
        """Return the outputs of feedback points since the last error tensor."""
        return self._passes.pending

    def discard(self) -> None:
        """Forget all passes that no backward has used."""
        self._records, self._passes, self.compiled_pass = [], Passes(), False
        self._recorder.reset()
        self._first_passes.end()

    def close(self) -> None:
        """Take the hooks off the model."""
        self.mode = "off"  # a compiled model may keep the hooks it was traced with, but notices the mode
        for handle in self._handles:
            handle.remove()
        self._vacate()
        self._vacate = lambda: None  # the model may have another rule when this one is closed again
        self.discard()

    def check_all_reached(self) -> None:
        """See `Cuts.check` and `AddedModules.check`."""
        self._cuts.check()
        self._added.check()

    def _trains(self) -> bool:
        """Whether a call of the model that begins or ends now is one to take note of."""
        return self.mode != "off" and self._recorder.needs_gradients()

    def _start(self, module: nn.Module, arguments: Any) -> None:
        if not self._trains():
            return
        if self._passes.begin(module):
            self._by_parts = False
            self._cuts.begin_pass()
            self._recorder.reset()
            self._first_passes.end()
        if self.points and not torch.compiler.is_compiling():
            self._first_passes.begin(module, self.mode == "cut")
        if self.mode == "cut" and self.points:
            self._recorder.start()

    def _check_end(self, module: nn.Module, arguments: Any, output: Any) -> Any:
        if self._trains() and self._passes.pending:
            names = ", ".join(dict.fromkeys(point.name for point in self._passes.pending))
            raise PointError(f"feedback point(s) above the error tensor '{', '.join(self.error_names)}': {names}")
        return self._further.watch_end(output, self._any_inner) if self._trains() and self.mode == "cut" else None

    def _end(self, module: nn.Module, arguments: Any, output: Any) -> None:
        """End a call of the model, also where it has failed."""
        if self._trains() and self._passes.under_way() and self._passes.end():
            self._recorder.reset()
            self._first_passes.end()
            self._cuts.end_pass()

    def _hook(
        self, silent: str | None, point: str | None, errors: Sequence[str], fields: Mapping[str, str]
    ) -> Callable[[nn.Module, Any, Any], Any]:
        """Make the hook of a module, which is cut first where it is a point and an error tensor."""

        def hook(module: nn.Module, arguments: Any, output: Any) -> Any:
            if not self._trains() or (not torch.compiler.is_compiling() and self._is_evaluation()):
                return None
            if silent is not None:
                self._cuts.note(silent)
                output = output if self.mode == "observe" else detach_all(output, f"silent module '{silent}'")
            if point is not None:
                output = self._at_point(point, module, output)
            if self.mode != "recompute":
                for name in errors:
                    tensor = first_tensor(output, f"error tensor '{name or 'model output'}'")
                    output = replace_first(output, self._at_error(name, tensor))
                for name, modules in fields.items():
                    tensor = field_tensor(output, name, modules)
                    output = replace_field(output, name, self._at_error(name, tensor))
                if self.mode == "cut" and (fields or "" in errors):
                    output = self._further.watch(output, fields)
            return output

        return hook

    def _at_point(self, name: str, module: nn.Module, output: Any) -> Any:
        activation = first_tensor(output, f"feedback point '{name}'")
        if self.mode != "describe":  # a description does not show that the pass to be trained has hooks
            self._cuts.note(name)
        alone = bool(self.error_names) and self._runs_alone(name)
        if self.mode == "cut":
            if not torch.compiler.is_compiling():
                check_no_transform(but_vmap=not self.error_names)
                if self.error_names:
                    check_no_backward_hooks(name, module)
            kept, handed_on = self._recorder.at_point(name, activation)
            self._first_passes.note(name, lambda: self._recorder.below(kept))
            self._further.note(name, handed_on, activation)
        elif self.mode == "recompute":
            kept, handed_on = self._recorder.at_point_of_part(name, activation)
        elif self.mode == "describe":
            kept, handed_on = Point(name, activation), activation.detach()
        else:
            kept, handed_on = self._recorder.observe_point(name, activation)
        if alone:
            handed_on = self.lone_points.add(kept, handed_on)
        elif self.error_names and (self.mode == "recompute" or torch.compiler.is_compiling() or not runs_again()):
            self._passes.pending.append(kept)
        if isinstance(output, Tensor):
            return handed_on
        if self.mode != "observe":
            # Or gradient would leak past the point through the other tensors.
            cut = partial(self._further.cut, name, self._recorder.learns_from) if self.mode == "cut" else None
            output = detach_all(output, f"feedback point '{name}'", cut)
        return replace_first(output, handed_on)

    def _at_error(self, name: str, tensor: Tensor) -> Tensor:
        points = self._points_of(name, tensor)
        if self.mode in ("observe", "describe"):
            observed = self.mode == "observe"
            record = (
                self._recorder.observe_error(name, tensor, points) if observed else ForwardRecord(name, points, tensor)
            )
            self._records.append(lambda: record)
            return tensor
        if not points and self._passes.under_way():  # where a checkpoint runs parts again there is no pass
            raise no_point(name, self._cuts.reached)
        if points and not tensor.requires_grad and name in self._outputs and not self._any_frozen():
            raise nothing_learns_above(points[-1].name, name)
        with nullcontext() if torch.compiler.is_compiling() else self.arrivals.ignored():  # where rows are tried
            record, passed_on = self._recorder.at_error(name, tensor, points)
        if torch.compiler.is_compiling():
            self.compiled_pass = True
        else:
            record.arrival = self.arrivals.check
            self._records = [alive for alive in self._records if alive() is not None]
            self._records.append(weakref.ref(record))
        return passed_on

    def _runs_alone(self, name: str) -> bool:
        """Whether a point runs in no call of the model, so that the graph alone can tell which error it belongs to.

        Raises:
            PointError: it does, and is not recorded in a way that would work.
        """
        if self.mode == "recompute" or self._passes.under_way():
            return False
        if torch.compiler.is_compiling():
            raise outside_of_calls(name, "torch.compile")
        if not runs_again():
            self._by_parts = True
            if self.mode == "cut":
                self._recorder.check_alone(name)
        return self._by_parts

    def _points_of(self, error: str, tensor: Tensor) -> list[Point]:
        """Take the points of an error tensor from the pending ones, and from those that it finds by the graph."""
        pending, self._passes.pending = self._passes.pending, []
        if self._targets:
            self._passes.pending = [point for point in pending if self._targets[point.name] != error]
            pending = [point for point in pending if self._targets[point.name] == error]
        if torch.compiler.is_compiling():
            return pending
        return [*self.lone_points.take(error, tensor, pending, self._targets), *pending]
