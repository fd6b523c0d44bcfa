"""Alignment: the angle between a rule's signals and those of backpropagation."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import hardshrink

from dfa.base.direct import DirectRule
from dfa.base.rule import Rule
from dfa.errors import PointError
from dfa.feedback.matrices import as_rows
from dfa.precision import at_least_single

NEGLIGIBLE = 1e-8
"""Components at most this large count as zero (Launay et al., 2020)."""

PIECE_ENTRIES = 1 << 20
"""Entries that are compared at a time."""


@dataclass(frozen=True)
class PointAlignment:
    """Alignment at one feedback point, row by row (a row is a sample, node or token).

    Attributes:
        cosines: cosine of the rule's signal and backpropagation's, one per row.
        mean, std: of the cosines (sample standard deviation).
        idle: share of rows that receive a negligible signal; their cosines are 0, or 1 where backpropagation's is too.
        activation_norm, signal_norm, bp_norm: mean Euclidean norm of a row.
    """

    cosines: Tensor = field(repr=False)
    mean: float
    std: float
    idle: float
    activation_norm: float
    signal_norm: float
    bp_norm: float


def row_cosines(signal: Tensor, reference: Tensor) -> Tensor:
    """Cosine between the rows of two (rows, width) tensors.

    Components of absolute value ≤ 1e-8 count as 0; a row where both are zero counts as 1, where one is as 0.
    """
    signal, reference = _without_negligible(signal), _without_negligible(reference)
    products = (signal * reference).sum(dim=1).double()
    norms = signal.norm(dim=1).double(), reference.norm(dim=1).double()
    nothing = [norm == 0 for norm in norms]
    cosines = torch.where(nothing[0] & nothing[1], 1.0, products / (norms[0] * norms[1]))
    return torch.where(nothing[0] ^ nothing[1], 0.0, cosines)


def _without_negligible(rows: Tensor) -> Tensor:
    return hardshrink(at_least_single(rows), NEGLIGIBLE)


def measure_alignment(rule: Rule, loss: Callable[[], Tensor]) -> dict[str, PointAlignment]:
    """Compare a rule's signal with backpropagation's at every feedback point, in the order of the points.

    One ordinary forward pass is run without cuts; backpropagation's signals are its gradients at the points, the
    rule's are computed from the error of the same pass, so both see the same parameters, inputs and dropout masks.
    Parameters' gradients stay untouched. Points below which all is frozen are left out. Forward passes that came
    before and await their backward are kept.

    Args:
        rule: a direct rule, hooked on its model. For `calibrate`, its inner rule is measured.
        loss: runs the model and returns the loss.

    Raises:
        PointError: the loss does not depend on an error tensor or a point, the rule is not a direct one, or an argument
            has the wrong type.
    """
    if not (isinstance(rule, Rule) and callable(loss)):
        raise PointError("measure_alignment takes a rule, and a function that runs the model and returns the loss")
    rule = rule.unwrapped
    if not isinstance(rule, DirectRule):
        raise PointError(
            f"rule '{rule.name}' has no signals to compare with backpropagation's: only direct rules send the error to"
            " their points"
        )
    # A compiled graph returns activations that its later part does not depend on, so it is run uncompiled here.
    uncompiled = torch.compiler.set_stance("force_eager")
    with rule.hooks.switched("observe"), rule.hooks.arrivals.ignored(), torch.enable_grad(), uncompiled:
        value = loss()
        records = rule.hooks.records
        wanted = [record.error for record in records if record.error is not None]
        wanted += [point.activation for record in records for point in record.points if point.activation.requires_grad]
        if not wanted:
            raise PointError("the loss was computed without reaching an error tensor")
        # Checkpoints run their parts again here. The graph is kept, for rules may send signals on it.
        gradients = torch.autograd.grad(value, wanted, allow_unused=True, retain_graph=True)
    if any(gradient is None for gradient in gradients):
        raise PointError("the loss does not depend on every error tensor and feedback point")
    errors, bp_signals = gradients[: len(records)], iter(gradients[len(records) :])
    measured: dict[str, list[Tensor]] = {}
    for record, error in zip(records, errors, strict=True):
        with rule.hooks.switched("observe"), rule.hooks.arrivals.ignored():
            signals = list(rule.signals(record.error_name, rule.encode(error), record.points))
        for point, signal in zip(record.points, signals, strict=True):
            if not point.activation.requires_grad:
                continue
            compared = point.activation.detach(), signal, next(bp_signals)
            rows = (as_rows(tensor, max(1, error.ndim - 1)) for tensor in compared)
            measured.setdefault(point.name, []).append(_row_by_row(*rows))
    return {name: _summary(torch.cat(parts)) for name, parts in measured.items()}


def _row_by_row(activation: Tensor, signal: Tensor, bp_signal: Tensor) -> Tensor:
    """Compute for each row the cosine, whether nothing was sent, and the three norms; (rows, 5).

    Activations are compared in pieces, since the copies that cosines need are as large as they are.
    """
    activation, signal, bp_signal = map(_as_real, (activation, signal, bp_signal))
    step = max(1, PIECE_ENTRIES // max(1, activation.shape[1]))
    columns = [
        (
            row_cosines(sent, wanted),
            (_without_negligible(sent).norm(dim=1) == 0).double(),
            *(rows.norm(dim=1).double() for rows in (kept, sent, wanted)),
        )
        for kept, sent, wanted in zip(activation.split(step), signal.split(step), bp_signal.split(step), strict=True)
    ]
    return torch.cat([torch.stack(piece, dim=1) for piece in columns])


def _as_real(rows: Tensor) -> Tensor:
    """Give a complex number two columns: lengths and angles stay those of the plane."""
    return torch.view_as_real(rows).flatten(1) if rows.is_complex() else rows


def _summary(rows: Tensor) -> PointAlignment:
    cosines = rows[:, 0]
    _, idle, activation_norm, signal_norm, bp_norm = rows.mean(dim=0).tolist()
    return PointAlignment(
        cosines=cosines,
        mean=cosines.mean().item(),
        std=cosines.std().item() if len(cosines) > 1 else 0.0,
        idle=idle,
        activation_norm=activation_norm,
        signal_norm=signal_norm,
        bp_norm=bp_norm,
    )
