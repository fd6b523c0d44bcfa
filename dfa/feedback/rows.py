"""Errors and activations as rows: samples, nodes or tokens, each a vector of features."""

from collections.abc import Sequence
from math import prod, sqrt

import torch
from torch import Tensor

from dfa.errors import FeedbackError
from dfa.hooks.points import Point


def as_rows(tensor: Tensor, batch_dims: int) -> Tensor:
    """Reshape a tensor to (rows, width); its first `batch_dims` dimensions count rows."""
    rows, width = row_shape(tensor, batch_dims)
    return tensor.reshape(rows, width)


def row_shape(tensor: Tensor, batch_dims: int) -> tuple[int, int]:
    """Rows and row width; a tensor with too few dimensions keeps at least its last one as features."""
    leading = min(batch_dims, max(1, tensor.ndim - 1))
    return prod(tensor.shape[:leading]), prod(tensor.shape[leading:])


def check_inner_shapes(known: dict[str, set[torch.Size]], points: Sequence[Point], batch_dims: int) -> None:
    """Check that rows of points have the sizes, but for their first one, that they had in the point's first pass.

    These say which entries stand in which place of a flattened row. Those of a first pass are put down as known.

    Args:
        known: point → sizes of rows; several where it runs at several sizes.
        points: of one pass.
        batch_dims: number of leading dimensions that count rows.

    Raises:
        FeedbackError: a point has others.
    """
    found: dict[str, set[torch.Size]] = {}
    for point in points:
        leading = min(batch_dims, max(1, point.activation.ndim - 1))
        found.setdefault(point.name, set()).add(point.activation.shape[leading + 1 :])
    for name, shapes in found.items():
        if new := shapes - known.setdefault(name, shapes):
            was, now = (" or ".join(map(_shown, sorted(some))) for some in (known[name], new))
            raise other_sizes(f"rows of point '{name}' had the shape {was} and now have {now}")


def _shown(inner: torch.Size) -> str:
    return f"({', '.join(['…', *map(str, inner)])})"


def count_repeats(rows: int, have: int, name: str) -> int:
    """Count the rows of a point for each row of the error.

    Args:
        rows: of the point.
        have: of the error.
        name: of the point, for the message.

    Raises:
        FeedbackError: one number is no multiple of the other.
    """
    if rows == have:
        return 1
    if have == 0 or rows % have:
        raise FeedbackError(
            f"point '{name}' has {rows} rows, which is no multiple of the error's {have}; batch_dims says how many"
            " leading dimensions count rows, as batch_dims=1 for images"
        )
    return rows // have


def other_sizes(what: str) -> FeedbackError:
    """Return the error of rows whose sizes have changed.

    Args:
        what: has changed, and how.
    """
    return FeedbackError(
        f"{what}: sizes of a row must stay as in the first pass; where sequences (batch, time, features) differ in"
        " length, batch_dims=2 makes every token a row"
    )


def repeat_rows(projected: Tensor, repeats: int) -> Tensor:
    """Repeat each row, divided by √repeats, which keeps the sum of squares."""
    return projected.repeat_interleave(repeats, dim=0) / sqrt(repeats)
