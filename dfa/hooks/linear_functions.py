"""Views and linear functions of weights in an autograd graph, applied to other weights."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dfa.hooks.graphs import leaves_below, nodes_below
from dfa.hooks.operations import describe


@dataclass(frozen=True)
class Factor:
    """A weight, or a view of one, that autograd keeps for the derivative of a product.

    Attributes:
        weight: its name.
        size, stride, offset: of the view; the offset counts from the weight's first entry.
        conjugate: whether it is the complex conjugate, which lies in the same memory.
    """

    weight: str
    size: torch.Size
    stride: tuple[int, ...]
    offset: int
    conjugate: bool

    @classmethod
    def found(cls, name: str, weight: Tensor, tensor: Tensor) -> "Factor | None":
        """Describe a tensor in the memory of the weight `name`; None where it goes beyond that, or reads it otherwise.

        A real weight may be read as a complex one, and a complex one as real numbers.
        """
        if tensor.dtype != weight.dtype:
            return None
        offset = int(tensor.storage_offset() - weight.storage_offset())
        if offset < 0 or offset + _extent(tensor) > _extent(weight):
            return None
        return cls(name, tensor.size(), tensor.stride(), offset, tensor.is_conj())

    def of(self, other: Tensor) -> Tensor:
        """Return the same view of another tensor in the weight's memory layout."""
        view = other.as_strided(self.size, self.stride, other.storage_offset() + self.offset)
        return view.conj() if self.conjugate else view


class LinearFunction:
    """A tensor F that was made from parameters θ by a linear function L: joined, cast, scaled, rearranged.

    The graph of F gives the transpose, Lᵀu = ∂⟨F, u⟩/∂θ, and that is linear in u, so that its own transpose is L.

    Args:
        tensor: F, with its graph.

    Raises:
        ValueError: F is not L θ.
    """

    def __init__(self, tensor: Tensor) -> None:
        # Derivatives do not tell a function that is linear by parts, as clamp, from one that is linear.
        if not all(describe(node.__class__).linear for node in nodes_below([tensor.grad_fn])):
            raise ValueError("not a linear function by the operations in its graph")
        self.tensor = tensor.detach()
        self._leaves = list(leaves_below(tensor))
        with torch.enable_grad():
            self._direction = torch.zeros_like(self.tensor, requires_grad=True)
            self._transposed = torch.autograd.grad(
                tensor, self._leaves, self._direction, create_graph=True, materialize_grads=True
            )
        bent = [leaf for part in self._transposed for leaf in leaves_below(part) if leaf is not self._direction]
        rounding = 64 * torch.finfo(tensor.dtype).eps * self.tensor.abs().amax()
        if bent or not (self._apply([leaf.detach() for leaf in self._leaves]) - self.tensor).abs().amax() <= rounding:
            raise ValueError("not a linear function of the parameters in its graph")

    def with_others(self, weights: Sequence[Tensor], others: Sequence[Tensor]) -> Tensor:
        """Return F after `others` took the place of `weights`, which are among its parameters."""
        changes = {id(weight): other - weight.detach() for weight, other in zip(weights, others, strict=True)}
        return self.tensor + self._apply([changes.get(id(leaf), torch.zeros_like(leaf)) for leaf in self._leaves])

    def _apply(self, values: Sequence[Tensor]) -> Tensor:
        """Compute L of values for all parameters."""
        used = [(part, value) for part, value in zip(self._transposed, values, strict=True) if part.requires_grad]
        if not used:
            return torch.zeros_like(self.tensor)
        parts, kept = zip(*used, strict=True)
        with torch.enable_grad():
            (applied,) = torch.autograd.grad(parts, self._direction, kept, retain_graph=True)
        return applied


def overlap(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors in one memory have bytes in common."""
    (start, end), (begin, stop) = (
        (tensor.data_ptr(), tensor.data_ptr() + _extent(tensor) * tensor.itemsize) for tensor in (one, other)
    )
    return start < stop and begin < end


def _extent(tensor: Tensor) -> int:
    """Number of entries from a tensor's first in memory to its last."""
    return 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
