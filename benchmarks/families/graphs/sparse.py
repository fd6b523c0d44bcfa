"""Sparse matrices with a gradient: the two products that every graph layer here is made of.

PyTorch differentiates `torch.sparse.mm`, but transposes the matrix anew in every backward pass. Graphs do not
change, so a `Pattern` computes its transpose once. The two products are each other's derivatives:
`weighted_sum` is (sparse × dense) and `pair_products` the dense product sampled at the sparse positions. Both take
several matrices of the same pattern at once, whose sum grows in one place.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


@dataclass(frozen=True)
class Pattern:
    """Where a sparse matrix has entries, in row order (CSR), together with the transpose.

    Attributes:
        shape: rows and columns.
        pointer, column: CSR row pointers (rows + 1) and column of every entry (nnz).
        row: row of every entry (nnz).
        pointer_t, column_t: the same of the transposed matrix.
        order_t: entry i of the transpose is entry `order_t[i]` here (nnz).
    """

    shape: tuple[int, int]
    pointer: Tensor
    column: Tensor
    row: Tensor
    pointer_t: Tensor
    column_t: Tensor
    order_t: Tensor

    @classmethod
    def from_sorted(cls, row: Tensor, column: Tensor, shape: tuple[int, int]) -> "Pattern":
        """Build from coordinates (nnz,) sorted by row, then by column, without repetitions."""
        order_t = torch.argsort(column, stable=True)
        return cls(shape, _pointer(row, shape[0]), column, row, _pointer(column, shape[1]), row[order_t], order_t)

    def csr(self, values: Tensor) -> Tensor:
        """The sparse matrix with these `values` (nnz,)."""
        return _csr(self.pointer, self.column, values, self.shape)

    def times(self, values: Tensor, dense: Sequence[Tensor]) -> Tensor:
        """Σ_t of the sparse matrix with `values[t]` (nnz,) times `dense[t]` (columns, channels)."""
        return _product()(self.pointer, self.column, values, dense, self.shape[0])

    def transposed_times(self, values: Tensor, dense: Tensor) -> Tensor:
        """The transposed matrix times `dense` (rows, channels); `values` in the order of the one that is not."""
        values = values.index_select(0, self.order_t)[None]
        return _product()(self.pointer_t, self.column_t, values, [dense], self.shape[1])

    def sampled(self, left: Tensor, right: Sequence[Tensor]) -> Tensor:
        """Inner products (terms, nnz) of rows of `left` and `right[t]` at the positions."""
        return _samples()(self.pointer, self.column, left, right)

    def to(self, device: torch.device) -> "Pattern":
        tensors = ("pointer", "column", "row", "pointer_t", "column_t", "order_t")
        return replace(self, **{name: getattr(self, name).to(device) for name in tensors})


@dataclass(frozen=True)
class SparseMatrix:
    """A constant sparse matrix (node features, a propagation matrix)."""

    pattern: Pattern
    values: Tensor

    @classmethod
    def from_entries(cls, row: Tensor, column: Tensor, values: Tensor, shape: tuple[int, int]) -> "SparseMatrix":
        """Build from coordinates in any order; values at the same place add up."""
        summed = torch.sparse_coo_tensor(torch.stack([row, column]), values, shape, check_invariants=False).coalesce()
        # Copies, because torch.compile fails on views of sparse tensors.
        row, column = summed.indices().clone()
        return cls(Pattern.from_sorted(row, column, shape), summed.values().clone())

    @classmethod
    def from_dense(cls, dense: Tensor) -> "SparseMatrix":
        row, column = dense.nonzero(as_tuple=True)
        shape = (int(dense.size(0)), int(dense.size(1)))
        return cls(Pattern.from_sorted(row, column, shape), dense[row, column])

    @property
    def shape(self) -> tuple[int, int]:
        return self.pattern.shape

    def __matmul__(self, dense: Tensor) -> Tensor:
        return weighted_sum(self.pattern, self.values[None], [dense])

    def dropout(self, probability: float, training: bool) -> "SparseMatrix":
        """Dropout of the entries: that of the dense matrix, whose other entries are zero whatever the mask."""
        if not training or probability == 0.0:
            return self
        return replace(self, values=torch.nn.functional.dropout(self.values, probability, training=True))

    def to_dense(self) -> Tensor:
        return self.pattern.csr(self.values).to_dense()

    def to(self, device: torch.device) -> "SparseMatrix":
        return SparseMatrix(self.pattern.to(device), self.values.to(device))


def weighted_sum(pattern: Pattern, values: Tensor, dense: Sequence[Tensor]) -> Tensor:
    """Sparse times dense, `out[i] = Σ_t Σ_j values[t][i, j] dense[t][j]`, differentiable in both.

    Args:
        pattern: positions of `values`, shape (rows, columns).
        values: (terms, nnz), in the pattern's order.
        dense: (columns, channels) for every term.

    Returns:
        (rows, channels), in the precision of `values`, single at least: sparse products know no other everywhere.
    """
    exact = torch.promote_types(values.dtype, torch.float32)
    result: Tensor = (_WeightedSum if torch.compiler.is_compiling() else SparseProduct).apply(
        pattern, values.to(exact), *[term.to(exact) for term in dense]
    )
    return result


def pair_products(pattern: Pattern, left: Tensor, right: Sequence[Tensor]) -> Tensor:
    """Inner products `left[i] · right[t][j]` at the pattern's positions (i, j), differentiable in both.

    Args:
        pattern: positions, shape (rows, columns).
        left: (rows, channels).
        right: (columns, channels) for every term.

    Returns:
        (terms, nnz), in the pattern's order and in the precision of `left`, single at least.
    """
    exact = torch.promote_types(left.dtype, torch.float32)
    result: Tensor = (_PairProducts if torch.compiler.is_compiling() else _PairProductsForwards).apply(
        pattern, left.to(exact), *[term.to(exact) for term in right]
    )
    return result


class _WeightedSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pattern: Pattern, values: Tensor, *dense: Tensor) -> Tensor:
        ctx.pattern = pattern
        ctx.save_for_backward(values, *dense)
        return pattern.times(values, dense)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        values, *dense = ctx.saved_tensors
        _, wants_values, *wants_dense = ctx.needs_input_grad
        to_values = ctx.pattern.sampled(gradient, dense) if wants_values else None
        to_dense = [
            ctx.pattern.transposed_times(term, gradient) if wanted else None
            for term, wanted in zip(values, wants_dense, strict=True)
        ]
        return None, to_values, *to_dense


class _PairProducts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pattern: Pattern, left: Tensor, *right: Tensor) -> Tensor:
        ctx.pattern = pattern
        ctx.save_for_backward(left, *right)
        return pattern.sampled(left, right)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        left, *right = ctx.saved_tensors
        _, wants_left, *wants_right = ctx.needs_input_grad
        to_left = ctx.pattern.times(gradient, right) if wants_left else None
        to_right = [
            ctx.pattern.transposed_times(term, left) if wanted else None
            for term, wanted in zip(gradient, wants_right, strict=True)
        ]
        return None, to_left, *to_right


# With forward-mode derivatives, which torch.compile cannot trace.
class SparseProduct(_WeightedSum):
    """Autograd's function of `weighted_sum`."""

    @staticmethod
    def forward(ctx: Any, pattern: Pattern, values: Tensor, *dense: Tensor) -> Tensor:
        ctx.save_for_forward(values, *dense)
        return _WeightedSum.forward(ctx, pattern, values, *dense)

    @staticmethod
    def jvp(ctx: Any, _: None, values: Tensor | None, *dense: Tensor | None) -> Tensor | None:
        at_values, *at_dense = ctx.saved_tensors
        moving = [(term, tangent) for term, tangent in zip(at_values, dense, strict=True) if tangent is not None]
        by_values = None if values is None else ctx.pattern.times(values, at_dense)
        by_dense = ctx.pattern.times(*zip(*moving, strict=True)) if moving else None
        return _sum(by_values, by_dense)


class _PairProductsForwards(_PairProducts):
    @staticmethod
    def forward(ctx: Any, pattern: Pattern, left: Tensor, *right: Tensor) -> Tensor:
        ctx.save_for_forward(left, *right)
        return _PairProducts.forward(ctx, pattern, left, *right)

    @staticmethod
    def jvp(ctx: Any, _: None, left: Tensor | None, *right: Tensor | None) -> Tensor | None:
        at_left, *at_right = ctx.saved_tensors
        by_left = None if left is None else ctx.pattern.sampled(left, at_right)
        if all(tangent is None for tangent in right):
            return by_left
        pairs = zip(at_right, right, strict=True)
        tangents = [torch.zeros_like(at) if tangent is None else tangent for at, tangent in pairs]
        return _sum(by_left, ctx.pattern.sampled(at_left, tangents))


def _sum(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    return second if first is None else first if second is None else first + second


def _multiply(pointer: Tensor, column: Tensor, values: Tensor, dense: Sequence[Tensor], rows: int) -> Tensor:
    total = dense[0].new_zeros(rows, dense[0].shape[1])
    for of_term, term in zip(values, dense, strict=True):
        # In place, which autocast leaves alone too.
        total.addmm_(_csr(pointer, column, of_term, (rows, term.shape[0])), term.contiguous())
    return total


def _sample(pointer: Tensor, column: Tensor, left: Tensor, right: Sequence[Tensor]) -> Tensor:
    # Detached, since forward-mode derivatives are computed with gradients enabled, which `out` does not take.
    left, samples = left.detach().contiguous(), left.new_zeros(len(right), column.numel())
    for row, term in zip(samples, right, strict=True):
        sampled = _csr(pointer, column, row, (left.shape[0], term.shape[0]))
        torch.sparse.sampled_addmm(sampled, left, term.detach().t(), beta=0.0, out=sampled)
    return samples


# torch.compile cannot look into sparse tensors, and takes the two products as they are. Called like this they cost some
# microseconds more, so otherwise they are called directly.
_multiply_opaque = torch.library.custom_op("dfa_graphs::multiply", _multiply, mutates_args=())
_sample_opaque = torch.library.custom_op("dfa_graphs::sample", _sample, mutates_args=())
_multiply_opaque.register_fake(lambda pointer, column, values, dense, rows: dense[0].new_empty(rows, dense[0].shape[1]))
_sample_opaque.register_fake(lambda pointer, column, left, right: left.new_empty(len(right), column.shape[0]))


def _product() -> Callable[[Tensor, Tensor, Tensor, Sequence[Tensor], int], Tensor]:
    return _multiply_opaque if torch.compiler.is_compiling() else _multiply


def _samples() -> Callable[[Tensor, Tensor, Tensor, Sequence[Tensor]], Tensor]:
    return _sample_opaque if torch.compiler.is_compiling() else _sample


def _csr(pointer: Tensor, column: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    return torch.sparse_csr_tensor(pointer, column, values, shape, check_invariants=False)


def _pointer(index: Tensor, size: int) -> Tensor:
    counts = torch.bincount(index, minlength=size)
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


# Trigger PyTorch's one-time CSR beta warning here, suppressed.
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch.eye(1).to_sparse_csr()
