"""What the operations of an autograd graph do to weights: products, sums, rearrangements, other functions."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor

PRODUCTS: dict[str, Sequence[str]] = {
    "Mm": ("self", "mat2"),
    "Mv": ("self", "vec"),
    "Addmm": ("", "mat1", "mat2"),
    "Bmm": ("self", "mat2"),
    "Baddbmm": ("", "batch1", "batch2"),
    "Mul": ("self", "other"),
    "Convolution": ("input", "weight"),
    "ConvolutionOverrideable": ("input", "weight"),
    "Trilinear": ("i1", "i2", "i3"),
    "GroupedMm": ("self", "mat2"),
    "Embedding": (),
    "EmbeddingBag": ("weight", "per_sample_weights"),
    "MkldnnRnnLayer": ("input", "weight0", "weight1", "", "", "hx_", "cx_"),
}
"""Products by autograd's names, and the name of each input that is a factor.

Autograd keeps a factor for the derivative with respect to the others. Taking rows by number is a product, too.
"""
_KERNELS = {"Convolution": "weight", "ConvolutionOverrideable": "weight", "Addmm": "mat2"}
"""Products that only a layer makes, and which factor is the layer's weight (`Addmm` is a linear layer with a bias)."""
_LEFT = ("self", "mat1", "batch1", "input")
"""Names of the first factor of a matrix product. Layers have their weight in the second one."""
_SUMS = re.compile(r"Where|MaskedFill")
"""Operations that weights are only added to, but that keep something.

Those that keep nothing are sums and rearrangements by nature.
"""
_ATTENTION = re.compile(r"ScaledDotProduct\w*Attention\w*")
_OPAQUE = "CppFunction"
"""Operations defined in C++ outside of PyTorch, and parts that torch.jit has compiled: what they keep is not shown."""
_REARRANGING = re.compile(r"Index\w*|Gather|ScatterAdd|Take|Div|Mul|Lerp|Addcmul|Fft\w+")
"""Operations that keep something, and are linear in their first input."""


@dataclass(frozen=True)
class Operation:
    """What nodes of one type do.

    Attributes:
        leaf: whether they stand for a tensor that is nobody's result.
        hides: whether they stand for a part of the graph that is not in it.
        factors: for a product, the name of each input that is a factor, or "".
        kernel: the factor that is a layer's weight, where no other use is common.
        left: the first factor of a matrix product.
        scales: whether it is a product entry by entry, which also makes one weight of another.
        attends: whether it is attention as a whole: of queries, keys and values.
        keeps: whether it is neither a product nor a sum, so that what it keeps may be a function of anything.
        linear: whether it is so in its first input, whatever it keeps.
        hides_how: whether it writes into a slice, by an operation that the graph does not show.
    """

    leaf: bool
    hides: bool
    factors: Sequence[str] | None
    kernel: str
    left: str
    scales: bool
    attends: bool
    keeps: bool
    linear: bool
    hides_how: bool


@cache
def describe(node_type: type) -> Operation:
    """Tell from what autograd calls an operation, and from whether it keeps tensors, what it does."""
    kind = re.sub(r"Backward\d*$", "", node_type.__name__)
    keeps = kind == _OPAQUE or any(attribute.startswith("_raw_saved_") for attribute in dir(node_type))
    factors = PRODUCTS.get(kind)
    attends = _ATTENTION.fullmatch(kind) is not None
    other = keeps and factors is None and not attends and not _SUMS.fullmatch(kind)
    scales = kind == "Mul"
    hides_how = kind == "CopySlices"
    return Operation(
        leaf=kind == "AccumulateGrad",
        hides=kind == "CheckpointFunction",
        factors=factors,
        kernel=_KERNELS.get(kind, ""),
        left=next((name for name in factors or () if name in _LEFT and not scales), ""),
        scales=scales,
        attends=attends,
        keeps=other,
        linear=not (keeps or hides_how) or _REARRANGING.fullmatch(kind) is not None,
        hides_how=hides_how,
    )


def is_repeated(node: Any, argument: str, other: str) -> bool:
    """Whether each entry of one factor of `node`, an entrywise product, meets several of another."""
    sizes, others = (reversed(_shape_before_repeating(node, name)) for name in (argument, other))
    return any(size == 1 and several > 1 for size, several in zip_longest(sizes, others, fillvalue=1))


def _shape_before_repeating(node: Any, argument: str) -> list[int]:
    """Return the shape of a factor of an entrywise product, or of what it repeats by `expand`."""
    before, output = node.next_functions[("self", "other").index(argument)]
    if before is None:
        return list(getattr(node, f"_saved_{argument}").shape)
    if isinstance(variable := getattr(before, "variable", None), Tensor):
        return list(variable.shape)
    if type(before).__name__.startswith("ExpandBackward"):
        return list(before._saved_self_sym_sizes)
    return list(before._input_metadata[output].shape)


def adds_up(node: Any, weights: Sequence[bool]) -> bool:
    """Whether what writes into a slice only puts or adds some of its inputs there; other factors show in derivatives.

    Args:
        node: of the operation.
        weights: for each input, whether it is one of these.
    """
    written = node._input_metadata[0]
    with torch.no_grad():
        derivatives = node(torch.ones(written.shape, dtype=written.dtype, device=written.device))
    parts = [part[part != 0] for part, asked in zip(derivatives, weights, strict=True) if asked and part is not None]
    return all(bool((part == part[:1]).all()) for part in parts)
