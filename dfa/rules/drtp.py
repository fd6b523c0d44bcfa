"""Direct random target projection: the target in place of the error."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from dfa.base.rule import RULES
from dfa.base.scaling import factors_of, scale_among
from dfa.errors import FeedbackError, PointError
from dfa.hooks.graphs import nodes_below
from dfa.hooks.points import ForwardRecord, Point
from dfa.rules.dfa import DirectFeedbackAlignment

SOFT = "rule 'drtp' reads hard targets off the signs of the error: leave out label smoothing and soft targets"


@RULES.register("drtp")
class DirectRandomTargetProjection(DirectFeedbackAlignment):
    """Direct random target projection (Frenkel et al., 2021): the signal is -y* B_l / n, y* the one-hot target.

    n counts the rows of this forward pass that the loss depends on. The signal is thus that of a mean over them,
    whatever factor the loss has, which cannot be read off the error; that of a GradScaler is known and counts. So a
    batch must come in one piece: in k parts, each with its loss divided by k, signals would be k times too large.

    Targets must be hard: label smoothing would turn them round where the output overshoots.

    For classification: of a softmax or logistic output's error the signs are known before the output is, minus for the
    target and plus for all others. So a layer can learn as soon as it has run. Here the targets are read off
    the error: they are its negative entries.

    Args:
        See `DirectFeedbackAlignment`.

    Raises:
        FeedbackError: in `backward`, an error with several negative entries in a row, which is no classifier's: the
            error is not taken at the class scores, or the task is none of classification; targets that are not hard;
            one output with another loss than binary cross-entropy, under which its error does not tell a target.
    """

    name = "drtp"
    whole_batches = True
    _binary = False

    def signals(self, error_name: str, error: Tensor, points: Sequence[Point]) -> Iterable[Tensor]:
        error_rows = self.feedback.rows(error)
        if error_rows.shape[1] == 1 and not (self._binary or torch.compiler.is_compiling()):
            raise FeedbackError(
                "rule 'drtp' is for classification: one output is a class score under binary_cross_entropy alone, with"
                " or without logits; otherwise give every class an output"
            )
        negative = error_rows < 0
        if (negative.sum(1) > 1).any():
            raise FeedbackError(
                "rule 'drtp' is for classification: the error must be taken at the class scores (model.error_at), but"
                f" that of '{error_name or 'the model output'}' has several negative entries in a row"
            )
        rows = error_rows.any(1).sum().clamp(min=1)  # those that the loss depends on
        scale = self.loss_scale
        size = 1 / rows if scale is None else scale / rows
        return super().signals(error_name, -(error < 0).to(error.dtype) * size.to(error.dtype), points)

    def backward(self, loss: Tensor) -> None:
        if self.hooks.compiled_pass and scale_among(factors_of(loss), self.name) is not None:
            raise PointError("rule 'drtp' knows no GradScaler inside torch.compile: leave one of them out")
        super().backward(loss)

    def recorded_passes(self, loss: Tensor) -> list[ForwardRecord]:
        records = super().recorded_passes(loss)
        self._check_targets(loss)
        return records

    def _check_targets(self, loss: Tensor) -> None:
        """Look at the loss functions above the error tensor, as far as their graph shows them."""
        self._binary = False
        smoothed: set[Any] = set()
        hard: set[Any] = set()
        for node in nodes_below([loss.grad_fn], until="_BroadcastErrorBackward"):
            kind, below = type(node).__name__, [before for before, _ in node.next_functions]
            scores = [before for before in below if type(before).__name__ == "LogSoftmaxBackward0"]
            (hard if kind.startswith("NllLoss") else smoothed).update(scores)
            if kind.startswith("BinaryCrossEntropy"):
                self._binary = True
                _check_hard(node._saved_target)
            elif kind == "MulBackward0" and scores and isinstance(node._saved_other, Tensor) and node._saved_other.ndim:
                _check_hard(node._saved_other)  # probabilities as targets
        if hard & smoothed:
            raise FeedbackError(SOFT)


def _check_hard(targets: Tensor) -> None:
    if ((targets > 0) & (targets < 1)).any():
        raise FeedbackError(SOFT)
