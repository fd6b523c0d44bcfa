"""Whether rows of a feedback point and of the error that are counted alike belong together."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from dfa.errors import FeedbackError
from dfa.hooks.points import Point

IN_ORDER = "rows in order"
"""Key of what a `RowOrder` knows, in a saved state."""


class RowOrder:
    """Compares the leading dimensions of points with the error's: as many rows may be rows in another order.

    (time, batch, …) inside of a model and (batch, time, …) outside are told apart by their sizes. Where the two sizes
    are equal they are not, and the point counts as being in the error's order if it once was with other sizes.

    Args:
        batch_dims: number of leading dimensions that count rows where the user has said so, and thereby that the order
            is the same; only the number is checked then.
    """

    def __init__(self, batch_dims: int | None = None) -> None:
        self._batch_dims = batch_dims
        self._known: set[str] = set()

    def state(self, points: Sequence[str]) -> dict[str, Tensor]:
        """Return the state to be saved: which points once were in the error's order; no entry if none was."""
        return {IN_ORDER: torch.tensor([name in self._known for name in points])} if self._known else {}

    def load(self, state: Mapping[str, Tensor], points: Sequence[str]) -> None:
        """Take up a saved state; older ones have no entry, and no point counts then."""
        known = state[IN_ORDER].tolist() if IN_ORDER in state else []
        self._known = {name for name, sure in zip(points, known, strict=False) if sure}

    def check(self, error: torch.Size, points: Sequence[Point]) -> None:
        """Check that all dimensions of the error but the last count rows that are the points', in one order.

        Raises:
            FeedbackError: they are not, or it cannot be told; `batch_dims` is more than the error or a point has.
        """
        if self._batch_dims is not None:
            most = max(1, len(error) - 1, *(point.activation.ndim - 1 for point in points))
            if self._batch_dims > most:
                raise FeedbackError(
                    f"batch_dims must be at most {most} for an error of {len(error)} dimensions, got {self._batch_dims}"
                )
            return
        for point in points:
            sure = _is_in_order(point.activation.shape, error, point.name)
            if sure and not torch.compiler.is_compiling():
                if _may_be_doubtful(point.activation.shape, error):
                    self._known.add(point.name)
            elif not sure and point.name not in self._known:
                raise FeedbackError(
                    f"point '{point.name}' of shape {tuple(point.activation.shape)} and the error of shape"
                    f" {tuple(error)} may have rows in different orders, such as (batch, time) and (time, batch):"
                    f" if the order is the same, say so with batch_dims={max(1, len(error) - 1)}"
                )


def _may_be_doubtful(point: torch.Size, error: torch.Size) -> bool:
    """Whether tensors of so many dimensions may have sizes that cannot tell."""
    return len(point) > 2 if len(error) == 3 else len(error) < 3 and len(point) == 3


def check_samples(error: torch.Size, points: Sequence[Point]) -> None:
    """Check that a point and an error of one dimension each hold a number for each of several samples.

    Raises:
        FeedbackError: no point with more dimensions shows it, and they may be the features of one sample.
    """
    if any(point.activation.ndim > 1 and point.activation.shape[0] == error[0] for point in points):
        return
    for point in points:
        if len(error) == point.activation.ndim == 1:
            raise FeedbackError(
                f"point '{point.name}' and the error have one dimension each, of {len(point.activation)} and"
                f" {error[0]}: features of one sample, or samples of one number each? Give a single sample a batch"
                " dimension of one, or say with batch_dims=1 that these are samples"
            )


def counts_neighbours(point: torch.Size, error: torch.Size) -> bool:
    """Whether rows of a point are taken to be in the error's order with nothing but their number to show it.

    So are k rows for each of the error's, and (batch, time, …) that the model has made one dimension of.
    """
    if len(error) > 2:
        sizes, given = ([size for size in some if size > 1] for some in (_leading(point, error), error[:-1]))
        return sizes != given and _joins(error[:-1], _leading(point, error))
    return 1 < error[0] < point[0] and point[0] % error[0] == 0


def _leading(point: torch.Size, error: torch.Size) -> torch.Size:
    """Return the sizes of a point's dimensions that count rows, where all of the error's but the last do."""
    return point[: max(1, min(len(error), len(point)) - 1)]


def _joins(sizes: Sequence[int], joined: Sequence[int]) -> bool:
    """Whether some sizes become others where neighbours are made one dimension; sizes of one do not count."""
    rest = [size for size in sizes if size != 1]
    for size in joined:
        product = 1
        while rest and product < size:
            product *= rest.pop(0)
        if product != size:
            return False
    return not rest


def sample_dims(point: torch.Size, samples: int) -> list[int]:
    """List the dimensions of a point that may count the error's samples, in whatever order: the first, or the second.

    Of three dimensions the second is left out, as sizes that do not tell it from the first are refused.
    """
    if samples < 2 or not point or point[0] < 1 or point[0] % samples:
        return []
    return [dim for dim in ((0, 1) if len(point) > 3 else (0,)) if point[dim] == samples]


def _is_in_order(point: torch.Size, error: torch.Size, name: str) -> bool:
    """Whether the sizes prove that the order is the same; raise FeedbackError where they prove that it is not."""
    if len(error) == 3 and len(point) > 2:
        agree, doubtful = tuple(point[:2]) == tuple(error[:2]), error[0] == error[1] != 1
    elif len(error) == 3:  # rows that the model has made one dimension of
        agree, doubtful = point[0] == error[0] * error[1], False
    elif len(error) < 3:  # one dimension of rows, which the point may have in second place
        doubtful = len(point) == 3 and point[1] == error[0] != 1
        agree = not doubtful or point[0] == error[0]
    else:  # an image's rows of pixels: other channels or sizes have no row of the error that is theirs
        agree, doubtful = _joins(error[:-1], _leading(point, error)), False
    if not agree:
        whole = "; batch_dims=1 takes a sample's error as a whole" if len(error) > 3 else ""
        raise FeedbackError(
            f"point '{name}' has the shape {tuple(point)} and the error {tuple(error)}, whose rows are not in the same"
            " order: let the point have an error of its own shape (points={pattern: error tensor}), or say with"
            f" batch_dims how many leading dimensions count rows, in one order in both{whole}"
        )
    return not doubtful
