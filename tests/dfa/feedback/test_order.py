"""Rows of points and of the error: refused where they may not belong together."""

import pytest
import torch

import dfa
from dfa.feedback.order import RowOrder, check_samples, counts_neighbours, sample_dims
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
    ((2, 5, 6, 8), (2, 5, 6, 3)),  # pixels with their channels last
    ((2, 5, 6, 4, 8), (2, 5, 6, 3)),
    ((60, 8), (2, 5, 6, 3)),
    ((2, 30, 8), (2, 5, 6, 3)),  # pixels as tokens
    ((2, 4, 30, 8), (2, 4, 5, 6, 3)),
    ((2, 5, 8), (2, 1, 5, 3)),
    ((1, 1, 8), (1, 1, 3)),
]
OTHERWISE = [
    ((5, 2, 8), (2, 5, 3)),
    ((4, 2, 8), (2, 3)),  # (time, batch, …) with an error for each sample
    ((2, 10, 8), (2, 5, 3)),  # an encoder of twice the length
    ((20, 8), (2, 5, 3)),
    ((3, 8, 4, 4), (2, 3, 8, 8)),
    ((2, 6, 4, 4), (2, 3, 8, 8)),  # as many rows, of other channels
    ((2, 4, 8, 8), (2, 1, 8, 8)),
    ((2, 90, 16), (2, 3, 32, 32)),
    ((192, 16), (2, 3, 8, 8)),
]
DOUBTFUL = [((4, 4, 8), (4, 4, 3)), ((4, 4, 8), (4, 3))]


def check(order: RowOrder, point: tuple[int, ...], error: tuple[int, ...]) -> None:
    order.check(torch.Size(error), [Point("p", torch.empty(point))])


@pytest.mark.parametrize(("point", "error"), SAME)
def test_rows_in_one_order(point: tuple[int, ...], error: tuple[int, ...]) -> None:
    check(RowOrder(), point, error)


@pytest.mark.parametrize(("point", "error"), OTHERWISE)
def test_rows_in_another_order(point: tuple[int, ...], error: tuple[int, ...]) -> None:
    whole = ".*batch_dims=1 takes a sample's error as a whole$" if len(error) > 3 else ".*in one order in both$"
    with pytest.raises(dfa.FeedbackError, match=rf"point 'p' has the shape .* not in the same order{whole}"):
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


def test_one_dimension_each() -> None:
    """Features of one sample without a batch dimension, or samples: only what else there is can tell."""
    number, numbers = Point("number", torch.empty(8)), Point("numbers", torch.empty(4))
    with pytest.raises(
        dfa.FeedbackError, match=r"point 'number' and the error have one .* of 8 and 2: .* batch_dims=1"
    ):
        check_samples(torch.Size([2]), [number])
    with pytest.raises(dfa.FeedbackError, match="have one dimension each"):
        check_samples(torch.Size([4]), [numbers])
    check_samples(torch.Size([4]), [numbers, Point("features", torch.empty(4, 8))])  # one number a sample beside others
    check_samples(torch.Size([4, 3]), [numbers])
    (signal,) = dfa.FeedbackMatrices(batch_dims=1).signals("", torch.ones(4), [numbers])  # as the user has said
    assert signal.shape == (4,)


@pytest.mark.parametrize("name", ["dfa", "identity", "drtp", "dkp", "low_rank", "fdfa", "grape"])
def test_one_sample_without_a_batch_dimension(name: str) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
    with (
        dfa.RULES.build(name, model, "1") as rule,
        pytest.raises(dfa.FeedbackError, match=r"have one dimension each|one output"),
    ):
        rule.backward(torch.nn.functional.cross_entropy(model(torch.randn(4)), torch.tensor(1)))


@pytest.mark.parametrize(
    ("point", "error", "counted"),
    [
        ((12, 8), (6, 3), True),
        ((12, 8), (4, 3, 3), True),
        ((6, 8), (6, 3), False),
        ((6, 4, 8), (6, 3), False),
        ((12, 8), (1, 3), False),
        ((13, 8), (6, 3), False),
        ((3, 8), (6, 3), False),
        ((12, 8), (12, 1, 3), False),
        ((12, 8), (1, 12, 1, 3), False),
        ((12, 8), (2, 3, 2, 3), True),
        ((24, 8), (2, 3, 2, 3), False),
        ((2, 3, 2, 8), (2, 3, 2, 3), False),
        ((2, 6, 8), (2, 3, 2, 3), True),
        ((2, 3, 8), (2, 1, 3, 3), False),
        ((2, 5, 8), (2, 3, 2, 3), False),
        ((4, 3, 8), (4, 3, 3), False),
        ((3, 8), (0, 3), False),
    ],
)
def test_where_nothing_but_the_number_of_rows_is_known(
    point: tuple[int, ...], error: tuple[int, ...], counted: bool
) -> None:
    assert counts_neighbours(torch.Size(point), torch.Size(error)) == counted


@pytest.mark.parametrize(
    ("point", "samples", "dims"),
    [
        ((6, 8), 6, [0]),
        ((6, 6, 8), 6, [0]),
        ((6, 6, 2, 2), 6, [0, 1]),
        ((12, 6, 2, 2), 6, [1]),
        ((13, 6, 2, 2), 6, []),
        ((12, 8), 6, []),
        ((1, 8), 1, []),
        ((0, 8), 0, []),
        ((), 6, []),
    ],
)
def test_where_samples_may_lie(point: tuple[int, ...], samples: int, dims: list[int]) -> None:
    assert sample_dims(torch.Size(point), samples) == dims
