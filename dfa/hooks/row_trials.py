"""Trials that ask autograd which rows of points a row of the error depends on."""

from collections.abc import Sequence
from math import prod

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor
from torch.autograd.function import BackwardCFunction
from torch.autograd.graph import get_gradient_edge

from dfa.errors import FeedbackError
from dfa.feedback.order import counts_neighbours, sample_dims
from dfa.feedback.rows import row_shape
from dfa.hooks.graphs import from_the_leaves
from dfa.hooks.points import Point
from dfa.precision import without_autocast

ROWS = 8
"""Rows of the error that are tried one by one."""


class Trial:
    """Sends random numbers from rows of the error down to points as backpropagation would.

    Derivatives are exactly zero where there is no dependence.

    Args:
        error: the error tensor.
        points: with an entry, in the order they ran in.
    """

    def __init__(self, error: Tensor, points: Sequence[Point]) -> None:
        self.error = error
        self._points = [(point.activation, point.entry) for point in points if point.entry is not None]
        self._numbers = torch.randn(error.shape, generator=_generator(), device="cpu").to(error)

    def is_harmless(self) -> bool:
        """Whether nothing but PyTorch's own derivatives runs when numbers are sent.

        Functions written in Python may do more, or work only once: those that write into what they have saved, of
        compiled parts, of hooks on the backward pass of modules, and those that send an error to points further down.
        """
        ends = [self.error.grad_fn, *(activation.grad_fn for activation, _ in self._points[1:])]
        leading = {get_gradient_edge(entry).node for _, entry in self._points}
        for node, before in from_the_leaves([end for end in ends if end is not None]):
            if leading.intersection(before):
                leading.add(node)
                if isinstance(node, BackwardCFunction) and not hasattr(node, "lone"):  # a lone point's mark
                    return False
        return True

    def send(self, rows: Tensor, leading: int = 1) -> dict[int, Tensor]:
        """Send numbers from some rows.

        Args:
            rows: whether each row sends.
            leading: number of dimensions of the error that count rows.

        Returns:
            where something arrives, in the shape of a point, by the identity of its entry, which copies of it share.
        """
        chosen = rows.to(self.error.device).reshape(*self.error.shape[:leading], *[1] * (self.error.ndim - leading))
        outputs, numbers = [self.error], [self._numbers * chosen]
        arriving: dict[int, Tensor] = {}
        with without_autocast(self.error), forward_ad._set_fwd_grad_enabled(False):
            for activation, entry in reversed(self._points):
                with torch._C.DisableTorchFunction():  # a model's own derivatives are watched, see `DerivativeWatch`
                    (got,) = torch.autograd.grad(outputs, [entry], numbers, retain_graph=True, materialize_grads=True)
                arriving[id(entry)] = got.ne(0) & got.isfinite()  # a product of zero and an infinite number came by
                if activation.requires_grad:
                    outputs, numbers = [*outputs, activation], [*numbers, got]
        return arriving


def check_rows(error: Tensor, entered: Sequence[Point], points: Sequence[Point]) -> None:
    """Check that points have their rows in the error's order, where autograd can be asked.

    Args:
        error: the error tensor.
        entered: points of the pass with an entry, from the lowest that is checked, in the order they ran in.
        points: those to be checked.

    Raises:
        FeedbackError: see `_check_samples` and `_check_neighbours`.
    """
    if error.is_cuda and torch.cuda.is_current_stream_capturing():
        return
    try:
        trial = Trial(error, entered)
        if trial.is_harmless():
            _check_samples(trial, points)
            _check_neighbours(trial, points)
    except RuntimeError:  # of a part whose derivative can be asked for only once, or is not implemented
        return


def _check_neighbours(trial: Trial, points: Sequence[Point]) -> None:
    """Check that rows of points act on the row of the error whose signal they get, if they act on any.

    Raises:
        FeedbackError: some rows of a point act on other rows of the error alone.
    """
    leading = max(1, trial.error.ndim - 1)
    rows = prod(trial.error.shape[:leading])
    points = [point for point in points if counts_neighbours(point.activation.shape, trial.error.shape)]
    if not points:
        return
    numbers = torch.arange(rows, device="cpu")
    anywhere = trial.send(numbers >= 0, leading)
    for row in _some(numbers, ROWS):
        here = trial.send(numbers == row, leading)
        for point in points:
            # One dimension for the error's rows, one for those of the point that belong to each.
            own, own_here = (sent[id(point.entry)].reshape(rows, -1)[row] for sent in (anywhere, here))
            width = point.activation.numel() // row_shape(point.activation, leading)[0]
            acting, acting_here = (part.reshape(-1, width).any(1) for part in (own, own_here))
            if (acting & ~acting_here).any():
                raise _other_order(
                    point, trial.error, ", each in its place or as neighbours: they act on other rows of the error"
                )


def _check_samples(trial: Trial, points: Sequence[Point]) -> None:
    """Check that points have the error's samples in the error's order, along their first dimension.

    Where every row of the error depends on its own alone, two runs show it. Rows that mix, as under batch normalisation
    or in graphs, have no order to be seen. So only rows that belong to rows in other places one to one are refused.

    Raises:
        FeedbackError: rows of the error depend on one row of the point each, which is another's, or on one index of its
            second dimension.
    """
    count = trial.error.shape[0]
    points = [point for point in points if sample_dims(point.activation.shape, count)]
    codes = torch.randperm(count, generator=_generator(), device="cpu")
    astray: dict[int, Point] = {}
    places = torch.zeros(count, dtype=torch.bool, device="cpu")
    for chosen in (codes & 1 > 0, codes & 2 > 0) if points else ():  # up to four rows are told apart by these
        arriving = trial.send(chosen)
        for point in points:
            reached = _along(arriving[id(point.entry)], 0).unflatten(0, (count, -1)).any(1)
            if (reached & ~chosen).any():
                astray[id(point.entry)] = point
                places |= reached & ~chosen
    if astray:
        _check_not_moved(trial, astray, places.nonzero().flatten())


def _check_not_moved(trial: Trial, points: dict[int, Point], places: Tensor) -> None:
    """Try rows one by one where samples of points have been reached from other rows of the error."""
    count = trial.error.shape[0]
    sources: dict[tuple[int, int], dict[int, int]] = {
        (entry, dim): {} for entry, point in points.items() for dim in sample_dims(point.activation.shape, count)
    }
    numbers = torch.arange(count, device="cpu")
    rows = sorted({*_some(places, ROWS // 2), *_some(numbers, ROWS // 2)})
    for row in rows:
        arriving = trial.send(numbers == row)
        for (entry, dim), found in [*sources.items()]:
            here = _along(arriving[entry], dim).nonzero().flatten().tolist()
            if len(here) > 1 or set(here) & set(found.values()):
                del sources[entry, dim]  # not one to one
            elif here:
                found[row] = here[0]
        if not sources:
            return
    arriving = trial.send(torch.isin(numbers, torch.tensor(rows, device="cpu"), invert=True))
    for (entry, dim), found in sources.items():
        others = _along(arriving[entry], dim)[list(found.values())]
        moved = [(row, place) for row, place in found.items() if dim > 0 or row != place]
        if len(found) > 1 and moved and not others.any():
            row, place = moved[0]
            where = f"row {place}" if dim == 0 else f"index {place} of the second dimension, as of (time, batch, …),"
            raise _other_order(points[entry], trial.error, f": row {row} of the error depends on {where} of the point")


def _some(rows: Tensor, most: int) -> list[int]:
    """List some rows, at equal distances."""
    some: list[int] = rows[:: -(-len(rows) // most)].tolist()
    return some


def _along(arriving: Tensor, dim: int) -> Tensor:
    """Tell at which indices of a dimension something arrives."""
    return arriving.movedim(dim, 0).flatten(1).any(1).cpu() if arriving.ndim > 1 else arriving.cpu()


def _generator() -> torch.Generator:
    return torch.Generator(device="cpu").manual_seed(0)


def _other_order(point: Point, error: Tensor, reason: str) -> FeedbackError:
    return FeedbackError(
        f"point '{point.name}' has the shape {tuple(point.activation.shape)} and the error {tuple(error.shape)}, but"
        f" its rows are not in the error's order{reason}. Take a point, or an error, with rows in one order, or say"
        f" with batch_dims={max(1, error.ndim - 1)} that they are"
    )
