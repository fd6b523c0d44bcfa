"""Sparse products against dense ones, gradients against finite differences."""

import pytest
import torch
from torch import Tensor

from benchmarks.families.graphs.sparse import Pattern, SparseMatrix, pair_products, weighted_sum


@pytest.fixture
def dense() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(5, 7, generator=generator, dtype=torch.float64)
    matrix[torch.rand(5, 7, generator=generator) < 0.6] = 0.0
    matrix[2] = 0.0  # an empty row
    return matrix


def test_product_and_gradient_equal_dense_ones(dense: Tensor) -> None:
    right = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
    out = SparseMatrix.from_dense(dense) @ right
    torch.testing.assert_close(out, dense @ right)
    upstream = torch.randn_like(out)
    (gradient,) = torch.autograd.grad(out, right, upstream)
    torch.testing.assert_close(gradient, dense.t() @ upstream)


def test_transposed_right_factor(dense: Tensor) -> None:
    right = torch.randn(3, 7, dtype=torch.float64)
    torch.testing.assert_close(SparseMatrix.from_dense(dense) @ right.t(), dense @ right.t())


def test_entries_in_any_order_add_up() -> None:
    row, column = torch.tensor([1, 0, 1]), torch.tensor([0, 1, 0])
    matrix = SparseMatrix.from_entries(row, column, torch.tensor([2.0, 3.0, 5.0]), (2, 2))
    assert matrix.to_dense().tolist() == [[0.0, 3.0], [7.0, 0.0]]


def test_both_products_pass_the_gradient_check(dense: Tensor) -> None:
    matrix = SparseMatrix.from_dense(dense)
    values = matrix.values.clone().requires_grad_()
    left = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    right = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
    values, other = torch.stack([values, values.flip(0)]).detach().requires_grad_(), right.detach().flip(0)
    other.requires_grad_()

    def total(v: Tensor, *terms: Tensor) -> Tensor:
        return weighted_sum(matrix.pattern, v, terms)

    def products(a: Tensor, *terms: Tensor) -> Tensor:
        return pair_products(matrix.pattern, a, terms)

    assert torch.autograd.gradcheck(total, (values, right, other), check_forward_ad=True)
    assert torch.autograd.gradcheck(products, (left, right, other), check_forward_ad=True)


def test_pair_products_are_inner_products_at_the_entries(dense: Tensor) -> None:
    pattern = SparseMatrix.from_dense(dense).pattern
    left, right = torch.randn(5, 3), [torch.randn(7, 3), torch.randn(7, 3)]
    expected = torch.stack([(left @ term.t())[pattern.row, pattern.column] for term in right])
    torch.testing.assert_close(pair_products(pattern, left, right), expected)


def test_terms_of_a_weighted_sum_add_up(dense: Tensor) -> None:
    matrix, right = SparseMatrix.from_dense(dense), [torch.randn(7, 3, dtype=torch.float64) for _ in range(2)]
    values = torch.stack([matrix.values, 3 * matrix.values])
    torch.testing.assert_close(weighted_sum(matrix.pattern, values, right), dense @ right[0] + 3 * dense @ right[1])


def test_half_precision_is_multiplied_in_single(dense: Tensor) -> None:
    """Under autocast too, which would cast the factors of a product on its way."""
    matrix = SparseMatrix.from_dense(dense.float())
    right = torch.randn(7, 3).bfloat16().requires_grad_()
    left = torch.randn(5, 3).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        out = matrix @ right
        (pairs,) = pair_products(matrix.pattern, left, [right])
    torch.testing.assert_close(out, dense.float() @ right.float())
    torch.testing.assert_close(pairs, (left.float() @ right.float().t())[dense.nonzero(as_tuple=True)])
    upstream = torch.randn_like(out)
    (gradient,) = torch.autograd.grad(out, right, upstream)
    torch.testing.assert_close(gradient, (dense.float().t() @ upstream).bfloat16())


def test_transpose_of_a_pattern(dense: Tensor) -> None:
    matrix = SparseMatrix.from_dense(dense)
    assert isinstance(matrix.pattern, Pattern)
    product = matrix.pattern.transposed_times(matrix.values, torch.eye(len(dense), dtype=dense.dtype))
    torch.testing.assert_close(product, dense.t())


def test_dropout_keeps_the_mean_and_touches_entries_only(dense: Tensor) -> None:
    matrix = SparseMatrix.from_dense(torch.ones(200, 200) * (torch.rand(200, 200) < 0.5))
    dropped = matrix.dropout(0.6, training=True)
    assert dropped.values.unique().tolist() == pytest.approx([0.0, 1 / 0.4])
    # 20,000 entries: the mean of the kept share deviates by 0.0035 (one standard deviation).
    assert dropped.values.count_nonzero().item() / dropped.values.numel() == pytest.approx(0.4, abs=0.02)
    assert matrix.dropout(0.6, training=False) is matrix
