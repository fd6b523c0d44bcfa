"""Weights in an autograd graph: the products in which a signal meets one on its way down."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from dfa.errors import PointError
from dfa.hooks.images import LinearImage

_PRODUCTS: dict[str, Sequence[str]] = {
    "Mm": ("self", "mat2"),
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
`declare_product` adds to them.
"""
_SUMS = re.compile(r"Where|MaskedFill|ScaledDotProduct\w*Attention\w*")
"""Operations that weights are only added to (as to attention's scores), but that keep something.

Those that keep nothing are sums and rearrangements by nature.
"""
Source = frozenset[str] | None
"""What a node was made from: weights (by name) and constants alone, or None where activations have a part."""
NOTHING: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Factor:
    """A weight, or a view of one, that autograd keeps for the derivative of a product.

    Attributes:
        weight: its name.
        size, stride, offset: of the view; the offset counts from the weight's first entry.
    """

    weight: str
    size: torch.Size
    stride: tuple[int, ...]
    offset: int


@dataclass(frozen=True)
class _Mixture:
    """A linear function of weights, kept as a factor.

    Attributes:
        image: the function.
        weights: their names.
    """

    image: LinearImage
    weights: Sequence[str]


@dataclass(frozen=True)
class _Operation:
    """What nodes of one type do.

    Attributes:
        leaf: whether they stand for a tensor that is nobody's result.
        hides: whether they stand for a part of the graph that is not in it.
        factors: for a product, the name of each input that is a factor, or "".
        scales: whether it is a product entry by entry, which also makes one weight of another.
        keeps: whether it is neither a product nor a sum, so that what it keeps may be a function of anything.
    """

    leaf: bool
    hides: bool
    factors: Sequence[str] | None
    scales: bool
    keeps: bool


class WeightExchange:
    """Exchanges the weights that autograd keeps for the derivatives of products, in one graph.

    The whole graph is looked at before anything goes backwards. A node of it was made from activations, or from weights
    and constants alone. Where a weight meets activations in a product, what autograd keeps must be the weight or a view
    of it, by its memory, or a linear function of weights, which is then applied to what takes their place. In a sum
    with activations nothing is exchanged. A weight that meets them otherwise, through another function, or where it
    cannot be exchanged, is an error: no weight has another part unnoticed.

    Args:
        weights: the weights to be exchanged, by name.
        others: further parameters of the model, which may be used in any way.
        feedback: returns what takes the place of a weight, by its name, in the weight's memory layout.

    Attributes:
        leaves: all tensors in the graph that are nobody's result.
    """

    def __init__(
        self, weights: dict[str, nn.Parameter], others: Iterable[nn.Parameter], feedback: Callable[[str], Tensor]
    ) -> None:
        self.leaves: list[Tensor] = []
        self._weights = weights
        self._feedback = feedback
        self._names = {id(weight): frozenset([name]) for name, weight in weights.items()}
        self._names.update((id(other), frozenset()) for other in others)
        self._frozen = frozenset(name for name, weight in weights.items() if not weight.requires_grad)

    def run(self, outputs: Iterable[Tensor]) -> None:
        """Exchange the weights in the graph that ends in some tensors.

        Raises:
            PointError: a weight that cannot be exchanged; the message names it and likely causes.
        """
        sources: dict[Any, Source] = {}
        for node, inputs in _from_the_leaves([output.grad_fn for output in outputs if output.grad_fn is not None]):
            names, active = NOTHING, False
            for other in inputs:
                if other is not None:
                    source = sources[other]
                    if source is None:
                        active = True
                    elif source:
                        names |= source
            operation = _describe(node.__class__)
            if operation.leaf:
                self.leaves.append(node.variable)
                sources[node] = self._names.get(id(node.variable))
            elif operation.hides:
                raise PointError("activation checkpointing hides weights from a sequential rule: leave it out")
            elif operation.factors is not None and (active or not operation.scales):
                if active and names and not operation.factors:
                    raise _no_factor(node, names)
                if names or self._frozen:
                    found = [(other, None if other is None else sources[other]) for other in inputs]
                    sources[node] = self._product(node, operation.factors, found)
                else:
                    sources[node] = None if active or None in inputs or not operation.factors else NOTHING
            elif operation.keeps and (len(names) > 1 or (active and names)):
                raise _no_factor(node, names)
            else:
                sources[node] = None if active else names

    def _product(self, node: Any, arguments: Sequence[str], inputs: Sequence[tuple[Any, Source]]) -> Source:
        factors = {name: entry for name, entry in zip(arguments, inputs, strict=False) if name}
        weights = [source for _, source in factors.values() if source]
        active = any(other is not None and source is None for other, source in factors.values())
        recurrent = "hx_" in factors  # where weights meet activations within
        if len(weights) > 1 and not active and not recurrent:
            if len(set(weights)) > 1:
                raise _no_factor(node, NOTHING.union(*weights))
            return weights[0]  # a weight times itself
        for argument, (before, source) in factors.items():
            if any(other is not None for name, (other, _) in factors.items() if name != argument):
                if source:
                    self._exchange(node, argument, source)
                elif before is None and self._frozen:
                    self._exchange(node, argument, self._frozen, required=False)
        return None

    def _exchange(self, node: Any, argument: str, names: frozenset[str], required: bool = True) -> None:
        """Exchange a factor of a product, which was made from some weights, or may be a frozen one (not `required`)."""
        found: list[str] = []
        copies: set[str] = set()
        in_graph = getattr(node, f"_saved_{argument}")

        def pack(tensor: Tensor) -> Any:
            if factor := self._factor(tensor, names):
                found.append(factor.weight)
                return factor
            if not required:
                copies.update(name for name in names if _same_numbers(tensor, self._weights[name]))
                return tensor
            try:
                image = LinearImage(in_graph)
            except (ValueError, RuntimeError):  # not linear, or by operations without a second derivative
                return tensor
            found.extend(names)
            return _Mixture(image, sorted(names))

        try:
            getattr(node, f"_raw_saved_{argument}").register_hooks(pack, self._unpack)
        except RuntimeError as error:
            if "freed" in str(error):
                raise
            raise PointError(
                f"{_listed(names)} cannot be exchanged under other hooks on saved tensors, as activation checkpointing"
                " and save_on_cpu have them: leave those out"
            ) from None
        if copies or (required and not found):
            raise _no_factor(node, copies or names)

    def _unpack(self, kept: Any) -> Tensor:
        if isinstance(kept, Factor):
            feedback = self._feedback(kept.weight)
            return feedback.as_strided(kept.size, kept.stride, feedback.storage_offset() + kept.offset)
        if isinstance(kept, _Mixture):
            others = [self._feedback(name) for name in kept.weights]
            return kept.image.with_others([self._weights[name] for name in kept.weights], others)
        return kept  # type: ignore[no-any-return]

    def _factor(self, tensor: Tensor, names: Iterable[str]) -> Factor | None:
        """Find the weight whose memory a tensor lies in; one memory may hold several."""
        if tensor.layout != torch.strided:
            return None
        memory = tensor.untyped_storage().data_ptr()
        for name in names:
            weight = self._weights[name]
            if weight.untyped_storage().data_ptr() == memory:
                offset = int(tensor.storage_offset() - weight.storage_offset())
                if offset >= 0 and offset + _extent(tensor) <= _extent(weight):
                    return Factor(name, tensor.size(), tensor.stride(), offset)
        return None


def declare_product(function: type[torch.autograd.Function]) -> None:
    """Declare that an autograd function multiplies what it is given by constants, or adds it up with such factors.

    Of a function that PyTorch does not define, a graph does not tell whether its result is still made of weights alone.
    That of a declared one counts as an activation, as that of a layer's product with constant inputs does.
    """
    _PRODUCTS[function.__name__] = ()
    _describe.cache_clear()


def _from_the_leaves(ends: Iterable[Any]) -> Iterator[tuple[Any, list[Any]]]:
    """Go through a graph so that every node comes after those that it was made from; yield these, too."""
    before: dict[Any, list[Any]] = {}
    done: set[Any] = set()
    waiting = list(ends)
    while waiting:
        node = waiting[-1]
        if node not in before:
            before[node] = [other for other, _ in node.next_functions]
            waiting += [other for other in before[node] if other is not None and other not in before]
        else:
            waiting.pop()
            if node not in done:
                done.add(node)
                yield node, before[node]


@cache
def _describe(node_type: type) -> _Operation:
    """Tell from what autograd calls an operation, and from whether it keeps tensors, what it does."""
    kind = re.sub(r"Backward\d*$", "", node_type.__name__)
    keeps = any(attribute.startswith("_raw_saved_") for attribute in dir(node_type))
    factors = _PRODUCTS.get(kind)
    other = keeps and factors is None and not _SUMS.fullmatch(kind)
    return _Operation(kind == "AccumulateGrad", kind == "CheckpointFunction", factors, kind == "Mul", other)


def _extent(tensor: Tensor) -> int:
    """Number of entries from a tensor's first in memory to its last."""
    return 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))


def _same_numbers(tensor: Tensor, weight: Tensor) -> bool:
    """Whether a constant is a copy of a weight, transposed or in another precision, which the graph does not tell."""
    turned = tensor if tensor.shape == weight.shape else tensor.mT if tensor.ndim > 1 else tensor
    return turned.shape == weight.shape and torch.equal(turned, weight.detach().to(tensor.dtype))


def _listed(names: Iterable[str]) -> str:
    return f"weight(s) {', '.join(sorted(names))}"


def _no_factor(node: Any, names: Iterable[str]) -> PointError:
    return PointError(
        f"{_listed(names)} reach {type(node).__name__} through a function that is not linear, which a sequential"
        " rule cannot exchange (weight_norm, spectral_norm, standardised convolutions, fused or compiled layers): use"
        " weights as they are, or name those to exchange with `weights`"
    )
