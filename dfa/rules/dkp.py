"""Direct Kolen-Pollack: feedback matrices that learn as the topmost weights do."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any, Literal

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from dfa.base.agreement import agree
from dfa.base.rule import RULES, Patterns, Points
from dfa.errors import FeedbackError
from dfa.feedback.states import check_known, check_tensor, matrix_key
from dfa.hooks.points import Point, Recorder
from dfa.rules.learned import LearnedFeedback, LearnedOptions
from dfa.values import check_choice, check_number

Optimiser = Literal["sgd", "adam"]


@RULES.register("dkp")
class DirectKolenPollack(LearnedFeedback):
    """Direct Kolen-Pollack learning: B_l ← B_l - η (eᵀ h_l + λ B_l).

    From Webster et al., *Learning the Connections in Direct Feedback Alignment* (2021). eᵀ h_l, summed over rows, is
    the gradient of a linear map from h_l straight to the error tensor: the feedback learns as that map would, and its
    transpose comes to resemble the network between the point and the error tensor.

    Args:
        model, points, error_at, silent, codec, around_identity: see `LearnedFeedback`.
        lr: η.
        decay: λ.
        optimizer: what makes the step of the gradient eᵀ h_l + λ B_l: "sgd" as above, or "adam".
        Others: of the matrices at the start, see `FeedbackMatrices`.

    Raises:
        FeedbackError: another optimizer, or a number out of range.
    """

    name = "dkp"

    def __init__(
        self,
        model: nn.Module,
        points: Points = (),
        error_at: Patterns = "",
        silent: Patterns = (),
        *,
        lr: float = 1e-3,
        decay: float = 1e-3,
        optimizer: Optimiser = "adam",
        **options: Unpack[LearnedOptions],
    ) -> None:
        kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
        check_choice("optimizer", optimizer, kinds)
        check_number("lr", lr, 0)
        check_number("decay", decay, 0)
        super().__init__(model, points, error_at, silent, **options)
        self._kind: Any = kinds[optimizer]
        self._settings = {"lr": lr, "weight_decay": decay}
        self._optimizers: dict[str, torch.optim.Optimizer] = {}
        self._saved: dict[str, Any] = {}  # of optimisers that are not made yet

    def _make_recorder(self, points: Points, error_at: Patterns) -> Recorder:
        return Recorder(self, copy=True)  # activations are read when the error arrives, whatever was done in place

    def learn(self, error_name: str, error: Tensor, points: Sequence[Point]) -> None:
        matrices = self.feedback.matrices(error_name, error, points)
        gradients = {name: torch.zeros_like(matrix) for name, matrix in matrices.items()}
        for point in points:
            gradients[point.name] += self.feedback.outer(error, point.activation.detach(), point.name)
        if (scale := self.loss_scale) is not None:
            for gradient in gradients.values():
                gradient.div_(scale)
        if not agree(list(gradients.values()), self.model, self.name):
            return
        for name, matrix in matrices.items():
            matrix.grad = gradients[name]
            self._optimizer(f"{error_name}:{name}", matrix).step()
            matrix.grad = None

    def _optimizer(self, key: str, matrix: Tensor) -> torch.optim.Optimizer:
        """Return the optimiser of a matrix; where the matrix moved or changed type, a new one with the old state."""
        optimizer = self._optimizers.get(key)
        if optimizer is None or optimizer.param_groups[0]["params"][0] is not matrix:
            state = self._saved.pop(key, None) if optimizer is None else optimizer.state_dict()
            optimizer = self._optimizers[key] = self._kind([matrix], **self._settings)
            if state is not None:
                optimizer.load_state_dict(state)
        return optimizer

    def _learning_state(self) -> dict[str, Any]:
        made = {key: optimizer.state_dict() for key, optimizer in self._optimizers.items()}
        return {"optimizers": {**self._saved, **made}}

    def _check_learning_state(self, state: dict[str, Any]) -> None:
        matrices = {
            f"{error}:{point}": matrix_key(error, point)
            for error in self.hooks.error_names
            for point in self.hooks.points
        }
        check_known(state["optimizers"], matrices)
        for key, saved in state["optimizers"].items():
            optimizer = self._kind([torch.empty(0)], **self._settings)
            try:
                optimizer.load_state_dict(saved)
                held = [value for values in optimizer.state.values() for value in values.values()]
            except (AttributeError, KeyError, TypeError, ValueError):
                raise FeedbackError(
                    f"the saved state of the optimiser of '{key}' does not fit this optimizer"
                ) from None
            for value in held:
                if isinstance(value, Tensor) and value.ndim:
                    check_tensor(key, value, state["feedback"][matrices[key]].shape)

    def _load_learning_state(self, state: dict[str, Any]) -> None:
        self._optimizers, self._saved = {}, deepcopy(dict(state["optimizers"]))
