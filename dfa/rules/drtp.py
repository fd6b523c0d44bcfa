"""Direct random target projection: the target in place of the error."""

import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dfa.base.rule import RULES
from dfa.base.scaling import factors_of, scale_among
from dfa.errors import FeedbackError, PointError
from dfa.hooks.graphs import nodes_below
from dfa.hooks.points import ForwardRecord, Point
from dfa.rules.dfa import DirectFeedbackAlignment

SOFT = (
    "rule 'drtp' needs hard targets, one to a row, and a loss that falls as they get likelier: leave out label"
    " smoothing, soft targets and mixtures"
)
DIFFERENCES = (
    "rule 'drtp' is for classification, by cross_entropy or binary_cross_entropy: of squared or absolute differences"
    " the error does not tell a target"
)
_ERRORS = ("_BroadcastErrorBackward", "_HoldRecordBackward")
_DIFFERENCES = ("MseLossBackward0", "SmoothL1LossBackward0", "HuberLossBackward0")
_MOVES = re.compile(
    r"(View|UnsafeView|ReshapeAlias|Alias|Transpose|T|Permute|Squeeze|Unsqueeze|Slice|Select|Index|IndexSelect|Clone"
    r"|ToCopy)Backward\d+"
)
"""Operations that put entries elsewhere, or leave some out, and change none."""
_INCREASING = ("SigmoidBackward0", "TanhBackward0")


class _Targets(NamedTuple):
    """Targets of an error tensor, in its shape.

    Attributes:
        hot: y*.
        counted: entries that the loss depends on; of cross-entropies those of the targets will do.
    """

    hot: Tensor
    counted: Tensor


@RULES.register("drtp")
class DirectRandomTargetProjection(DirectFeedbackAlignment):
    """Direct random target projection (Frenkel et al., 2021): the signal is -y* B_l / n, y* the one-hot target.

    n counts the rows of this forward pass that the loss depends on. The signal is thus that of a mean over them,
    whatever factor the loss has, which cannot be read off the error; that of a GradScaler is known and counts. So a
    batch must come in one piece: in k parts, each with its loss divided by k, signals would be k times too large.

    Targets must be hard: label smoothing would turn them round where the output overshoots.

    For classification: of a softmax or logistic output's error the signs are known before the output is, minus for the
    target and plus for all others. So a layer can learn as soon as it has run. Here targets are taken from where the
    loss's gradient arrives at `log_softmax`, or are those of binary cross-entropy, provided that nothing but
    rearrangements, casts and positive factors lies between there and the error tensor. Otherwise they are read off the
    error: they are its negative entries. So is an error that has been through a codec, or whose alignment is measured,
    in any case.

    Args:
        See `DirectFeedbackAlignment`.

    Raises:
        FeedbackError: in `backward`, an error with several negative entries in a row, or one without that is not 0,
            which is no classifier's: the error is not taken at the class scores, the task is none of classification,
            or the output is so sure that the target's error rounds to 0; targets that are not hard; one output with
            another loss than binary cross-entropy, under which its error does not tell a target.
    """

    name = "drtp"
    whole_batches = True
    _binary = False
    _told: dict[int, _Targets] | None = None  # by the list of points that their signals are for

    def signals(self, error_name: str, error: Tensor, points: Sequence[Point]) -> Iterable[Tensor]:
        error_rows = self.feedback.rows(error)
        compiled = torch.compiler.is_compiling()
        if error_rows.shape[1] == 1 and not (self._binary or compiled):
            raise FeedbackError(
                "rule 'drtp' is for classification: one output is a class score under binary_cross_entropy alone, with"
                " or without logits; otherwise give every class an output"
            )
        told = None if compiled or self._told is None else self._told.pop(id(points), None)
        targets = error < 0 if told is None else told.hot
        target_rows = self.feedback.rows(targets)
        where = f"that of '{error_name or 'the model output'}'"
        if (target_rows.sum(1) > 1).any():
            raise FeedbackError(
                "rule 'drtp' is for classification: the error must be taken at the class scores (model.error_at), but"
                f" {where} has several {'negative entries' if told is None else 'targets'} in a row"
            )
        training = self.hooks.mode != "observe"  # a measurement goes on
        if training and not self._binary and (_has_positive(error_rows) & ~target_rows.any(1)).any():
            raise FeedbackError(
                "rule 'drtp' cannot tell the target of a row whose error has no negative entry, as"
                f" {where}: take the error where cross_entropy takes its scores, and no difference as loss"
            )
        counted = error_rows if told is None else self.feedback.rows(told.counted)
        rows = counted.any(1).sum().clamp(min=1)  # those that the loss depends on
        scale = self.loss_scale
        size = 1 / rows if scale is None else scale / rows
        return super().signals(error_name, -targets.to(error.dtype) * size.to(error.dtype), points)

    def backward(self, loss: Tensor) -> None:
        if self.hooks.compiled_pass and scale_among(factors_of(loss), self.name) is not None:
            raise PointError("rule 'drtp' knows no GradScaler inside torch.compile: leave one of them out")
        super().backward(loss)

    def recorded_passes(self, loss: Tensor) -> list[ForwardRecord]:
        records = super().recorded_passes(loss)
        self._watch_targets(loss)
        return records

    def _watch_targets(self, loss: Tensor) -> None:
        """Have the loss functions above the error tensors tell their targets as soon as their own gradient is known."""
        self._binary, self._told = False, {}
        for node in nodes_below([loss.grad_fn], until=_ERRORS[0]):
            kind = type(node).__name__
            if kind == "LogSoftmaxBackward0":
                self._let_tell(node, partial(_of_softmax, node._saved_dim))
            elif kind.startswith("BinaryCrossEntropy"):
                self._binary = True
                _check_hard(node._saved_target)
                self._let_tell(node, partial(_of_logistic, node._saved_target, node._saved_weight))
            elif kind in _DIFFERENCES or kind in ("PowBackward0", "AbsBackward0"):
                _check_no_difference(node)

    def _let_tell(self, node: Any, targets_of: Callable[[Tensor], _Targets]) -> None:
        """Put a hook on the node of a loss function, which notes the targets of the error tensor below it."""
        way, end = _way_down(node.next_functions[0][0])
        points = _points_of(end)
        if points is None and not self.hooks.compiled_pass and not _reaches_error(node):
            return

        def tell(gradients: tuple[Tensor | None, ...]) -> None:
            (gradient,) = gradients
            if gradient is None:
                return
            targets = targets_of(gradient)
            if points is not None and self._told is not None and self._codec is None:
                own = _Targets(*(_sent_down(way, mask.to(gradient.dtype)) != 0 for mask in targets))
                others = self._told.get(points)
                self._told[points] = own if others is None else _Targets(*map(torch.logical_or, own, others))

        node.register_prehook(tell)


def _of_softmax(dimension: int, gradient: Tensor) -> _Targets:
    """Read targets off the gradient of logarithms of probabilities, which is -1, times some factor, at the target."""
    hot = gradient < 0
    dimension -= 2**64 if dimension >= 2**63 else 0  # autograd keeps a negative one without its sign
    if (gradient > 0).any() or (hot.sum(dimension) > 1).any():
        raise FeedbackError(SOFT)
    return _Targets(hot, hot)


def _of_logistic(target: Tensor, weight: Tensor | None, gradient: Tensor) -> _Targets:
    """Take the targets of a binary cross-entropy where its gradient, of the mean or of each entry, arrives at all."""
    if (gradient < 0).any():
        raise FeedbackError(SOFT)
    counted = gradient.expand_as(target) != 0
    if weight is not None:
        counted = counted & (weight != 0)
    return _Targets((target > 0) & counted, counted)


def _way_down(node: Any) -> tuple[list[Any], Any]:
    """Go down from a node while entries keep their order of size; return those that move any, and the node below."""
    way = []
    while (moves := _MOVES.fullmatch(type(node).__name__)) or type(node).__name__ in _INCREASING or _is_factor(node):
        if moves:
            way.append(node)
        node = node.next_functions[0][0]
    return way, node


def _is_factor(node: Any) -> bool:
    """Whether a node multiplies its first input by a positive number, or divides it by one."""
    other = node._saved_other if type(node).__name__ in ("MulBackward0", "DivBackward0") else None
    return isinstance(other, Tensor) and other.ndim == 0 and bool(other > 0)


def _sent_down(way: Sequence[Any], entries: Tensor) -> Tensor:
    with torch.no_grad():
        for node in way:
            moved = node(entries)
            entries = moved[0] if isinstance(moved, tuple) else moved
    return entries


def _points_of(node: Any) -> int | None:
    """Return the identity of the list of points that get their signals from an error tensor; None of another node."""
    kind = type(node).__name__
    if kind == _ERRORS[0]:
        return None if node.sending is None else id(node.sending[2])
    return id(node.record.points) if kind == _ERRORS[1] else None


def _reaches_error(node: Any) -> bool:
    return any(type(below).__name__ in _ERRORS for below in nodes_below([node], until=_ERRORS[0]))


def _check_no_difference(node: Any) -> None:
    """Refuse the node of a squared or absolute difference from an error tensor, or of a loss function of such."""
    if type(node).__name__ in _DIFFERENCES:
        found = _reaches_error(node)
    else:
        difference = _way_down(node.next_functions[0][0])[1]
        found = type(difference).__name__ == "SubBackward0" and any(
            _points_of(_way_down(side)[1]) is not None for side, _ in difference.next_functions
        )
    if found:
        raise FeedbackError(DIFFERENCES)


def _check_hard(targets: Tensor) -> None:
    if ((targets > 0) & (targets < 1)).any():
        raise FeedbackError(SOFT)


def _has_positive(rows: Tensor) -> Tensor:
    """Whether each row has a positive entry; numbers that are not finite, as after an overflow, do not count."""
    return ((rows > 0) & rows.isfinite()).any(1)
