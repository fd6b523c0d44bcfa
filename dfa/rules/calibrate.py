"""A batch of exact backpropagation now and then, beside any rule."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dfa.base.rule import RULES, Patterns, Points, Rule, Uses, check_differentiable
from dfa.errors import PointError
from dfa.feedback.states import check_counter, check_entries
from dfa.hooks.model import FeedbackHooks
from dfa.hooks.outputs import tensors_in
from dfa.hooks.placing import Hook
from dfa.hooks.points import Mode
from dfa.hooks.targets import patterns_of
from dfa.patterns import find_modules
from dfa.registry import OptionError
from dfa.values import check_count, check_seed


@dataclass
class _Going:
    """A backward pass under way: its kind, and whether an error has arrived at a forward pass of the model."""

    exact: bool
    arrived: bool = False


@RULES.register("calibrate")
class Calibrated(Rule):
    """Another rule, and exact backpropagation on every n-th batch, the first included.

    As in GrAPE (Caillon et al., *Scaling Direct Feedback Learning with Jacobian Alignment Guarantees*, 2026), where the
    rare exact batches keep deep networks from drifting. The control "the exact batches only" is `rule="shallow"`: what
    lies below the topmost point then learns from nothing else.

    A batch is all forward passes since the last backward; they are made for one kind of batch. Where several backwards
    follow, as for real and generated images, they belong to one batch, too.

    Args:
        model, points, error_at, silent: see `Rule`.
        rule: name of the other rule.
        every: n; 1 is backpropagation.
        options: of the other rule.
        seed: of the other rule, where it takes one.

    Raises:
        FeedbackError: `every` below 1.
        UnknownNameError, OptionError: no such rule, or it has not these options; `calibrate` itself.

    Attributes:
        inner: the other rule.
    """

    name = "calibrate"

    def __init__(
        self,
        model: nn.Module,
        points: Points = (),
        error_at: Patterns = "",
        silent: Patterns = (),
        *,
        rule: str = "dfa",
        every: int = 10,
        options: dict[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        check_count("every", every)
        check_seed(seed)
        if rule == self.name:
            raise OptionError(f"rule '{self.name}' cannot be the other rule of itself")
        options = {} if options is None else options
        if not isinstance(options, Mapping) or not all(isinstance(key, str) for key in options):
            raise OptionError(f"rule '{self.name}': option 'options' must map names to values, got {options!r}")
        seeded = {"seed": seed} if "seed" in (RULES.options(rule) or {}) else {}
        self.inner: Rule = RULES.build(rule, model, points, error_at, silent, **{**seeded, **options})
        self.whole_batches = self.inner.whole_batches
        self.every = every
        self.batches = 0
        super().__init__(model, points, error_at, silent)
        self._paused = self._fresh = False
        self._going: _Going | None = None
        point_modules = find_modules(model, patterns_of(points)).values()
        self._handles = [module.register_forward_hook(Hook(self._at_point)) for module in point_modules]
        # Before the other rule's hooks, whose errors tell less, and after them, where they have replaced the output.
        self._handles += [model.register_forward_hook(Hook(self._watch), prepend=first) for first in (True, False)]
        self._usual_mode: Mode = self.hooks.mode
        self._switch()

    @property
    def unwrapped(self) -> Rule:
        return self.inner

    @property
    def uses(self) -> Uses:
        exact, inner = 1 / self.every, self.inner.uses
        return replace(
            inner,
            bp_batches=exact + (1 - exact) * inner.bp_batches,
            extra_forwards=(1 - exact) * inner.extra_forwards,
        )

    def _make_hooks(self, points: Points, error_at: Patterns, silent: Patterns) -> FeedbackHooks:
        return self.inner.hooks

    def backward(self, loss: Tensor) -> None:
        """Add this batch's gradients to the parameters' `.grad`: the exact ones, or the other rule's.

        Raises:
            PointError: the loss is of a forward pass for another kind of batch; or there was none since the last
                backward, and the loss is of no earlier one that is known; and what the other rule raises.
        """
        number = self.batches if self._fresh else self.batches - 1  # a second backward in the same batch
        self._going = _Going(self._is_exact(number))
        try:
            if self._going.exact:
                check_differentiable(loss)
                with self.hooks.arrivals.expected():
                    loss.backward()
            else:
                self.inner.backward(loss)
            if not (self._fresh or self._going.arrived):
                raise PointError(
                    f"rule '{self.name}': there was no forward pass of the model since the last backward, and the loss"
                    " is of none before it that is known (a compiled one is not)"
                )
        finally:
            self._going = None
        self.batches, self._fresh = number + 1, False
        self._switch()

    def _is_exact(self, number: int) -> bool:
        return number % self.every == 0

    def _switch(self) -> None:
        """Switch the hooks for the forward passes before the next backward: cutting the graph, or off."""
        self._mode = self.hooks.mode = "off" if self._is_exact(self.batches) else self._usual_mode

    def _training(self) -> bool:
        return not self._paused and torch.is_grad_enabled() and self.hooks.mode == self._mode

    def _at_point(self, *_: Any) -> None:
        """Note a training pass, also one of a part of the model that is called by itself."""
        if self._training():
            self._fresh = True

    def _watch(self, module: nn.Module, arguments: Any, output: Any) -> None:
        """Note a training pass of the model, and what kind of batch it is for."""
        if not self._training():
            return
        self._fresh = True
        if not torch.compiler.is_compiling():
            for tensor in tensors_in(output):
                if tensor.requires_grad:
                    tensor.register_hook(partial(self._error_arrives, self._mode == "off"))

    def _error_arrives(self, exact: bool, error: Tensor) -> None:
        """Check that a pass goes backward in a batch of its kind, which its graph was made for."""
        if self._going is None:
            if exact:  # after a plain `loss.backward()` no other kind of batch would come
                self.hooks.arrivals.check()
        elif self._going.exact == exact:
            self._going.arrived = True
        else:
            raise PointError(
                f"rule '{self.name}': this forward pass was made for {'an exact' if exact else 'another kind of'}"
                " batch, before the last backward: call backward before the next forward pass, or add the losses"
            )

    @contextmanager
    def paused(self) -> Iterator[None]:
        before, self._paused = self._paused, True
        try:
            with self.inner.paused():
                yield
        finally:
            self._paused = before

    def matrix_shapes(self) -> dict[str, tuple[int, ...]]:
        return self.inner.matrix_shapes()

    def state_dict(self) -> dict[str, Any]:
        return {"batches": torch.tensor(self.batches), "inner": self.inner.state_dict()}

    def check_state_dict(self, state: dict[str, Any]) -> None:
        check_entries(self.name, state, ["batches", "inner"])
        check_counter("batches", state["batches"])
        self.inner.check_state_dict(state["inner"])

    def _take_up(self, state: dict[str, Any]) -> None:
        self.batches = int(state["batches"])
        self.inner.load_state_dict(state["inner"])
        self._switch()

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()
        self.inner.close()
