"""A batch of exact backpropagation now and then, beside any rule."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from dfa.base.rule import RULES, Patterns, Points, Rule, Uses, check_differentiable, check_state
from dfa.hooks.model import FeedbackHooks
from dfa.hooks.outputs import tensors_in
from dfa.hooks.placing import Hook
from dfa.hooks.points import Mode
from dfa.registry import OptionError
from dfa.values import check_count, check_seed


@RULES.register("calibrate")
class Calibrated(Rule):
    """Another rule, and exact backpropagation on every n-th batch, the first included.

    As in GrAPE (Caillon et al., *Scaling Direct Feedback Learning with Jacobian Alignment Guarantees*, 2026), where the
    rare exact batches keep deep networks from drifting. The control "the exact batches only" is `rule="shallow"`: what
    lies below the topmost point then learns from nothing else.

    Args:
        model, points, error_at, silent: see `Rule`.
        rule: name of the other rule.
        every: n; 1 is backpropagation.
        options: of the other rule.
        seed: of the other rule, where it takes one.

    Raises:
        ValueError: `every` below 1.
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
        self._paused = False
        self._handle = model.register_forward_hook(Hook(self._watch))
        self._usual_mode: Mode = self.hooks.mode
        self._switch()

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
        if self.batches % self.every == 0:
            check_differentiable(loss)
            with self.hooks.going_backward():
                loss.backward()
        else:
            self.inner.backward(loss)
        self.batches += 1
        self._switch()

    def _switch(self) -> None:
        """Switch the hooks for the forward passes before the next backward: cutting the graph, or off."""
        self.hooks.mode = "off" if self.batches % self.every == 0 else self._usual_mode

    def _watch(self, module: nn.Module, arguments: Any, output: Any) -> None:
        """Have a plain `loss.backward()` told in exact batches, too, after which no other kind of batch would come."""
        exact = self.batches % self.every == 0 and not self._paused
        if exact and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            for tensor in tensors_in(output):
                if tensor.requires_grad:
                    tensor.register_hook(self._error_arrives)

    def _error_arrives(self, error: Tensor) -> None:
        self.hooks.check_backward()

    @contextmanager
    def paused(self) -> Iterator[None]:
        self._paused = True
        try:
            with super().paused():
                yield
        finally:
            self._paused = False

    def matrix_shapes(self) -> dict[str, tuple[int, ...]]:
        return self.inner.matrix_shapes()

    def state_dict(self) -> dict[str, Any]:
        return {"batches": torch.tensor(self.batches), "inner": self.inner.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        check_state(self.name, state, ["batches", "inner"])
        self.batches = int(state["batches"])
        self.inner.load_state_dict(state["inner"])
        self._switch()

    def close(self) -> None:
        self._handle.remove()
        self.inner.close()
