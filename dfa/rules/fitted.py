"""Feedback weights between blocks that are fitted to what the layers take in and give out."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from dfa.base.agreement import agree
from dfa.errors import PointError
from dfa.feedback.states import check_counter, check_entries
from dfa.hooks.model import FeedbackHooks
from dfa.hooks.placing import Hook
from dfa.patterns import inner_model
from dfa.precision import at_least_single, without_autocast
from dfa.rules.between_blocks import LearnedFromZeroBetweenBlocks

RIDGE = 0.01
"""ε, relative to the mean of the diagonal of XᵀX."""


class FittedBetweenBlocks(LearnedFromZeroBetweenBlocks):
    """Least squares: B begins at zero, follows the changes of W, and is fitted to the layer's inputs and outputs.

    For a layer y = W x + b, with a row of X for every x of a batch and R = Y - b - X Bᵀ what B does not explain of its
    outputs,

        B ← B + Rᵀ X (XᵀX + ε I)⁻¹,    ε = `RIDGE` times the mean of the diagonal of XᵀX.

    As R = -X (B - W)ᵀ, and B - W is what is kept (see `KolenPollack`), this is (B - W) ← ε (B - W) (XᵀX + ε I)⁻¹: the
    difference disappears wherever there are inputs. That W can be found from activities is the idea of weight mirrors
    (Akrout et al., *Deep Learning without Weight Transport*, 2019), which take a correlation instead of a fit.

    Args:
        model: the module to train.
        hooks: of the rule that sends.
        every: fit in every n-th batch.

    Raises:
        PointError: a complex weight; in a backward pass, one that is not that of an `nn.Linear`, or of one that is not
            called.
    """

    takes_complex = False

    def __init__(self, model: nn.Module, hooks: FeedbackHooks, every: int) -> None:
        self._moments = _InputMoments(hooks)
        self._every = every
        self._batches = 0
        super().__init__(model, hooks)

    def _attach(self) -> list[RemovableHandle]:
        names = {id(weight): name for name, weight in self.weights.items()}
        layers = [module for module in inner_model(self.model).modules() if type(module).forward is nn.Linear.forward]
        return [
            layer.register_forward_hook(self._moments.hook(names[id(layer.weight)]), with_kwargs=True)
            for layer in layers
            if id(layer.weight) in names
        ]

    def feedback_weight(self, name: str) -> Tensor:
        if self._sending and name not in self._moments.names:
            raise _cannot_be_fitted(name)
        return super().feedback_weight(name)

    def end_batch(self, scaled: bool) -> None:
        if self._moments.wanted:
            self._fit()
        self._batches += 1
        self._moments.wanted = self._batches % self._every == 0
        super().end_batch(scaled)

    @torch.no_grad()
    def _fit(self) -> None:
        if unseen := sorted(self.crossed - self._moments.sums.keys()):
            raise _cannot_be_fitted(unseen[0])
        moments = {name: self._moments.sums[name] for name in sorted(self.crossed)}
        self._moments.sums.clear()
        if moments and agree(list(moments.values()), self.model, self.name):
            for name, moment in moments.items():
                ridge = RIDGE * moment.diagonal().mean()
                if ridge > 0:
                    difference = self._stored_for(name)
                    moment.diagonal().add_(ridge)
                    rest = torch.linalg.solve(moment, ridge * difference.T.to(moment.dtype))
                    difference.copy_(rest.T)

    def state_dict(self) -> dict[str, Any]:
        return {"differences": super().state_dict(), "batches": self._batches}

    def check_state_dict(self, state: dict[str, Any]) -> None:
        check_entries(self.name, state, ["differences", "batches"])
        check_counter("batches", state["batches"])
        super().check_state_dict(state["differences"])

    def _take_up(self, state: dict[str, Any]) -> None:
        super()._take_up(state["differences"])
        self._batches = state["batches"]
        self._moments.wanted = self._batches % self._every == 0


def _cannot_be_fitted(name: str) -> PointError:
    return PointError(
        f"feedback 'fitted' is that of nn.Linear layers that are called, and '{name}' is the weight of another module,"
        " or used without calling its layer, or in a forward pass before the last backward: take learned_zero or"
        " kolen_pollack"
    )


class _InputMoments:
    """Sums of XᵀX over what linear layers take in, from passes that go backward.

    Attributes:
        names: of the layers' weights.
        wanted: whether the passes that are made now, and go backward before the next batch, are summed up.
        sums: name → XᵀX, (inputs, inputs).
    """

    def __init__(self, hooks: FeedbackHooks) -> None:
        self._hooks = hooks
        self.names: set[str] = set()
        self.wanted = True
        self.sums: dict[str, Tensor] = {}

    def hook(self, name: str) -> Hook:
        """Return a forward hook for the layer whose weight has this name."""
        self.names.add(name)

        def see(layer: nn.Linear, arguments: tuple[Tensor, ...], named: dict[str, Tensor], output: Tensor) -> None:
            if self.wanted and self._hooks.mode == "cut" and output.requires_grad:
                taken_in = (arguments[0] if arguments else named["input"]).detach()
                rows = at_least_single(taken_in.reshape(-1, layer.in_features))
                with without_autocast(rows):
                    moment = rows.T @ rows
                output.register_hook(partial(self._add, name, [moment]))

        return Hook(see)

    def _add(self, name: str, moments: list[Tensor], signal: Tensor) -> None:
        """Add the moment of a call once a signal has come, the first of several; it goes with the graph otherwise."""
        if moments and self.wanted and self._hooks.arrivals.are_expected:  # no trial of rows
            moment = moments.pop()
            self.sums[name] = moment + self.sums[name] if name in self.sums else moment
