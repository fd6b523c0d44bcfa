"""Kolen and Pollack's rule: feedback weights that move with the weights, and meet them."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from dfa.base.agreement import agree
from dfa.base.rule import RULES, Patterns, Points, Uses
from dfa.base.scaling import may_be_scaled
from dfa.base.sequential import SequentialRule
from dfa.errors import PointError
from dfa.feedback.distributions import gaussian_like
from dfa.hooks.placing import Hook
from dfa.patterns import inner_model
from dfa.values import check_number, check_seed


@RULES.register("kolen_pollack")
class KolenPollack(SequentialRule):
    """Kolen and Pollack's rule (1994; Akrout et al., 2019): weights and feedback change and decay alike.

        W ← (1 - λ) W + ΔW,    B ← (1 - λ) B + ΔW.

    ΔW, which is what the optimiser does to W, can be had at both synapses, so no weight is transported. The difference
    B - W does not depend on ΔW and shrinks by 1 - λ a batch; it is what is kept here, and B is made from it.

    Weights that `load_state_dict` puts into the model are no ΔW: B stays as it is, unless they are loaded after the
    rule's own state, as another part of the same checkpoint.

    Args:
        model, points, error_at, silent, weights: see `SequentialRule`.
        decay: λ, from 0 to 1, for each `backward`; applied to the model's weights too, to those that learn and have a
            part in the backward pass. Nothing decays where a GradScaler will leave out the step, as gradients are not
            finite.
        seed: of the feedback weights at the start, which are drawn as those of `fa`.
    """

    name = "kolen_pollack"

    def __init__(
        self,
        model: nn.Module,
        points: Points = (),
        error_at: Patterns = "",
        silent: Patterns = (),
        *,
        weights: Patterns = "**",
        decay: float = 1e-3,
        seed: int = 0,
    ) -> None:
        check_number("decay", decay, 0, 1)
        check_seed(seed)
        self.decay, self._seed = decay, seed
        self._restored = False  # whether the differences are those of weights that may still be loaded
        self._loading: dict[str, Tensor] = {}
        super().__init__(model, points, error_at, silent, weights=weights)

    @torch.no_grad()
    def _make_state(self) -> None:
        drawn = gaussian_like(self.weights, self._seed)
        self._differences = {name: feedback.sub_(self.weights[name]) for name, feedback in drawn.items()}
        self._handles += self._watch_loading()

    @property
    def uses(self) -> Uses:
        return replace(super().uses, state="learned feedback")

    @torch.no_grad()
    def feedback_weight(self, name: str) -> Tensor:
        difference = self._stored_for(name)
        return torch.empty_like(difference).copy_(self.weights[name]).add_(difference)

    def backward(self, loss: Tensor) -> None:
        scaled = may_be_scaled(loss)
        with _weights_as_they_were():
            super().backward(loss)
        self.decay_both(self.replaced, scaled)

    def exchange(self, outputs: Sequence[Tensor], inputs: Sequence[Tensor] = ()) -> list[str]:
        with _weights_as_they_were():
            return super().exchange(outputs, inputs)

    @torch.no_grad()
    def decay_both(self, names: Iterable[str], scaled: bool) -> None:
        """Let weights and their feedback decay by 1 - λ, after a backward pass.

        Args:
            names: of the weights; those that do not learn stay as they are.
            scaled: whether a GradScaler may leave out the step.
        """
        self._restored = False
        if self.decay == 0 or (scaled and not self._gradients_are_finite()):
            return
        for name in names:
            if self.weights[name].requires_grad:
                self.weights[name].mul_(1 - self.decay)
                self._stored_for(name).mul_(1 - self.decay)

    def _gradients_are_finite(self) -> bool:
        """Look at all gradients, as a GradScaler does, in all processes."""
        gradients = [
            parameter.grad.coalesce().values() if parameter.grad.is_sparse else parameter.grad
            for parameter in self.model.parameters()
            if parameter.grad is not None
        ]
        finite = torch.stack([gradient.isfinite().all().to(gradients[0].device) for gradient in gradients]).all()
        return agree([torch.where(finite, 0.0, torch.inf)], self.model, self.name)

    def _take_up(self, state: dict[str, Any]) -> None:
        super()._take_up(state)
        self._restored = True

    def _watch_loading(self) -> list[RemovableHandle]:
        """Put hooks around `load_state_dict` of every module that has one of the weights."""
        names = {id(weight): name for name, weight in self.weights.items()}
        handles: list[RemovableHandle] = []
        for module in inner_model(self.model).modules():
            if isinstance(module, torch.jit.ScriptModule):  # which takes no such hooks
                continue
            if own := [names[id(weight)] for weight in module._parameters.values() if id(weight) in names]:
                handles.append(module.register_load_state_dict_pre_hook(Hook(partial(self._before_loading, own))))
                handles.append(module.register_load_state_dict_post_hook(Hook(partial(self._after_loading, own))))
        return handles

    @torch.no_grad()
    def _before_loading(self, names: Sequence[str], *_: Any) -> None:
        if not self._restored:
            self._loading.update({name: self.weights[name] + self._stored_for(name) for name in names})

    @torch.no_grad()
    def _after_loading(self, names: Sequence[str], *_: Any) -> None:
        for name in names:
            if (feedback := self._loading.pop(name, None)) is not None:
                self._stored_for(name).copy_(feedback).sub_(self.weights[name])

    def _stored(self) -> dict[str, Tensor]:
        return self._differences


@contextmanager
def _weights_as_they_were() -> Iterator[None]:
    """Run a block that goes through a graph; say what to do where weights have changed since that was made."""
    try:
        yield
    except RuntimeError as error:
        if "modified by an inplace operation" not in str(error):
            raise
        raise PointError(
            "a weight has changed since this forward pass, as weights decay after each backward: add the losses and"
            " call backward once, make the second forward pass after the first backward, or take decay=0"
        ) from None
