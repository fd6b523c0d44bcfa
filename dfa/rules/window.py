"""The window control: backpropagation in the topmost layers, and nothing below."""

from fractions import Fraction
from functools import partial
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from dfa.base.rule import RULES, Patterns, Points, Rule, Uses, check_differentiable, check_some_points
from dfa.errors import PointError
from dfa.hooks.cuts import AddedModules
from dfa.hooks.derivatives import FrozenRecorder
from dfa.hooks.graphs import nodes_below
from dfa.hooks.model import FeedbackHooks
from dfa.hooks.outputs import tensors_in
from dfa.hooks.placing import Hook
from dfa.hooks.targets import error_patterns, find_error_tensors, find_targets, patterns_of
from dfa.patterns import children_first, find_modules, inner_model
from dfa.values import check_count, check_number


@RULES.register("window")
class Window(Rule):
    """Backpropagation between the error and the topmost points, with all that lies below them frozen.

    A rule without backpropagation that trains every layer has to beat it, for it leaves out as much work. Of the points
    of each error tensor the topmost ⌈fraction · points⌉ let the gradient through; at the others the graph is cut and
    nothing is sent, as under `shallow`, which is `layers=0`. With a point at the output of every block so many blocks
    learn, beside the layers above the topmost point.

    Points are counted in the order of their modules in the model, those inside a module before it; a model that runs
    them in another order, so that a frozen one comes after one that learns and would leave it without gradient, is
    refused; so is one that runs a point again on what came out of it, as a block of shared weights, which could not be
    frozen below and learn above. A point that is skipped in a pass, as in layer drop, is no obstacle.

    Args:
        model, points, error_at, silent: see `Rule`.
        fraction: of the points, from 0 to 1.
        layers: number of points, instead of the fraction.

    Raises:
        FeedbackError: a fraction or number out of range.
        PointError: no points; in a forward pass, a frozen point that runs after one that learns, or one that runs again
            above one that learns.
    """

    name = "window"

    def __init__(
        self,
        model: nn.Module,
        points: Points = (),
        error_at: Patterns = "",
        silent: Patterns = (),
        *,
        fraction: float = 0.25,
        layers: int | None = None,
    ) -> None:
        check_number("fraction", fraction, 0, 1)
        if layers is not None:
            check_count("layers", layers, 0)
        check_some_points(self.name, points)
        self._groups: list[tuple[list[str], list[str]]] = []
        for group in _points_by_error(model, points, error_at):
            count = ceil(Fraction(str(fraction)) * len(group)) if layers is None else min(layers, len(group))
            self._groups.append((group[: len(group) - count], group[len(group) - count :]))
        super().__init__(model, points, error_at, silent)
        self._runs: dict[str, list[Any]] = {}  # nodes that the points' outputs come from, in a forward pass
        self._ever: set[str] = set()
        self._added = AddedModules(model, [patterns_of(points)])
        self._in_pass = False
        self._run_again: set[str] = set()
        self._handles: list[RemovableHandle] = [
            module.register_forward_hook(Hook(partial(self._at_point, name)), prepend=True)
            for name, module in find_modules(model, patterns_of(points)).items()
        ]
        self._handles += [
            model.register_forward_pre_hook(Hook(partial(self._enter_pass, True)), prepend=True),
            model.register_forward_hook(Hook(partial(self._enter_pass, False)), always_call=True),
        ]

    @property
    def uses(self) -> Uses:
        learning = any(learning for _, learning in self._groups)
        return Uses(forward_weights="all", sequential=True, bp_batches=1.0) if learning else Uses()

    def _make_hooks(self, points: Points, error_at: Patterns, silent: Patterns) -> FeedbackHooks:
        frozen = [name for frozen, _ in self._groups for name in frozen]
        return FeedbackHooks(self.model, frozen, None, silent, FrozenRecorder() if frozen or silent else None)

    def backward(self, loss: Tensor) -> None:
        self.hooks.check_all_reached()
        self._added.check()
        if missing := [name for _, learning in self._groups for name in learning if name not in self._ever]:
            raise PointError(
                f"feedback point(s) never reached by a forward pass: {', '.join(missing)}; those inside torch.compile"
                " are not seen, and rule 'window' needs them outside of it"
            )
        check_differentiable(loss)
        loss.backward()
        self._runs = {}

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()
        super().close()

    def _enter_pass(self, entered: bool, *_: Any) -> None:
        if not torch.compiler.is_compiling():
            self._in_pass, self._runs = entered, {}

    def _at_point(self, name: str, module: nn.Module, arguments: Any, output: Any) -> None:
        if torch.compiler.is_compiling() or not (self.hooks.mode == "cut" and torch.is_grad_enabled()):
            return
        self._ever.add(name)
        outputs = tensors_in(output)
        again = name in self._runs
        if not (again and name in self._run_again):  # once is enough: the next pass will be alike
            self._check_below(name, outputs, again)
            if again:
                self._run_again.add(name)
        # The nodes of parts that are called by themselves are not kept, for nothing tells when they end.
        self._runs.setdefault(name, []).extend(tensor.grad_fn for tensor in outputs[: self._in_pass])

    def _check_below(self, name: str, outputs: list[Tensor], again: bool) -> None:
        """Check that what learns is not below this point: the rows of a batch may come in pieces, or in pairs."""
        for frozen, learning in self._groups:
            below = {name} if name in learning else set(learning) if name in frozen else set()
            ran = [other for other in learning if other in below and other in self._runs]
            passed = {node for other in ran for node in self._runs[other] if node is not None}
            above = bool(passed) and any(node in passed for node in nodes_below([output.grad_fn for output in outputs]))
            if ran and again and above:
                raise PointError(
                    f"rule '{self.name}' freezes points or lets them learn, but '{name}' runs again above what learns,"
                    " and would be both: take points that run once (in a copy of the shared module, say)"
                )
            if ran and not again and (above or not self._in_pass):
                raise PointError(
                    f"rule '{self.name}' takes points in the order of their modules, but '{name}', to be frozen, ran"
                    f" after {', '.join(ran)}"
                )


def _points_by_error(model: nn.Module, points: Points, error_at: Patterns) -> list[list[str]]:
    """List the points of each error tensor, in the order of their modules; those inside a module come before it."""
    wanted, targets = find_modules(model, patterns_of(points)), find_targets(model, points)
    errors, _ = find_error_tensors(model, error_patterns(points, error_at))
    groups: dict[object, list[str]] = {}
    passed = 0
    for name in children_first(inner_model(model)):
        if name in wanted:
            groups.setdefault(targets.get(name, passed), []).append(name)
        passed += name in errors
    return list(groups.values())
