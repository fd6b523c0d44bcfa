"""Rows of points and of the error: refused where they may not belong together."""

import pytest
import torch

import dfa
from dfa.feedback.order import RowOrder
from dfa.hooks.points import Point

SAME = [
    ((7, 8), (7, 3)),
    ((21, 8), (7, 3)),  # rays with three samples each
    ((7, 4, 8), (7, 3)),
    ((7, 8, 4, 4), (7, 3)),
    ((4, 4, 8, 8), (4, 3)),  # as many channels as images
    ((2, 5, 8), (2, 5, 3)),
    ((2, 5, 6, 8), (2, 5, 3)),
    ((10, 8), (2, 5, 3)),
    ((16, 8), (4, 4, 3)),
    ((2, 8, 4, 4), (2, 3, 8, 8)),
    ((1, 1, 8), (1, 1, 3)),
]
OTHERWISE = [
    ((5, 2, 8), (2, 5, 3)),
    ((4, 2, 8), (2, 3)),  # (time, batch, …) with an error for each sample
    ((2, 10, 8), (2, 5, 3)),  # an encoder of twice the length
    ((20, 8), (2, 5, 3)),
    ((3, 8, 4, 4), (2, 3, 8, 8)),
]
DOUBTFUL = [((4, 4, 8), (4, 4, 3)), ((4, 4, 8), (4, 3))]


def check(order: RowOrder, point: tuple[int, ...], error: tuple[int, ...]) -> None:
    order.check(torch.Size(error), [Point("p", torch.empty(point))])


@pytest.mark.parametrize(("point", "error"), SAME)
def test_rows_in_one_order(point: tuple[int, ...], error: tuple[int, ...]) -> None:
    check(RowOrder(), point, error)


@pytest.mark.parametrize(("point", "error"), OTHERWISE)
def test_rows_in_another_order(point: tuple[int, ...], error: tuple[int, ...]) -> None:
    with pytest.raises(dfa.FeedbackError, match=r"point 'p' has the shape .* not in the same order"):
        check(RowOrder(), point, error)
    check(RowOrder(batch_dims=2), point, error)  # as the user has said


@pytest.mark.parametrize(("point", "error"), DOUBTFUL)
def test_sizes_that_cannot_tell(point: tuple[int, ...], error: tuple[int, ...]) -> None:
    order = RowOrder()
    with pytest.raises(dfa.FeedbackError, match=rf"may have rows in different orders.* batch_dims={len(error) - 1}$"):
        check(order, point, error)
    check(order, (4, 5, 8), (4, 5, 3) if len(error) == 3 else (4, 3))
    check(order, point, error)  # a last batch that is as large as the sequence is long


def test_more_dimensions_of_rows_than_there_are() -> None:
    with pytest.raises(dfa.FeedbackError, match="batch_dims must be at most 2 for an error of 2 dimensions, got 3"):
        check(RowOrder(batch_dims=3), (2, 4, 8), (2, 3))
    check(RowOrder(batch_dims=2), (2, 4, 8), (2, 3))  # tokens that share the error of their sequence
