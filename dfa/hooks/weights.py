"""Weights in an autograd graph: the products in which a signal meets one on its way down."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dfa.errors import PointError
from dfa.hooks.graphs import from_the_leaves, nodes_below
from dfa.hooks.linear_functions import Factor, LinearFunction, overlap
from dfa.hooks.operations import PRODUCTS, Operation, adds_up, describe, is_repeated

NOTHING: frozenset[str] = frozenset()


class Source(NamedTuple):
    """What a tensor was made from.

    Attributes:
        active: whether activations have a part, and not weights and constants alone.
        names: of the weights that it was made from. Of an activation: of those that it is a sum with, or a product that
            is no layer, unless a layer or a function that is not linear has come after.
    """

    active: bool
    names: frozenset[str]


ACTIVATION = Source(True, NOTHING)
CONSTANT = Source(False, NOTHING)


@dataclass(frozen=True)
class _Mixture:
    """A linear function of weights, kept as a factor.

    Attributes:
        function: which gives it from the weights.
        weights: their names.
    """

    function: LinearFunction
    weights: Sequence[str]


class WeightExchange:
    """Exchanges the weights that autograd keeps for the derivatives of products, in one graph.

    The whole graph is looked at before anything goes backwards. A node of it was made from activations, or from weights
    and constants alone. Where a weight meets activations in a product, what autograd keeps must be the weight or a view
    of it, by its memory, or a linear function of weights, which is then applied to what takes their place. In a sum
    with activations nothing is exchanged. A weight that meets them otherwise, through another function, or where it
    cannot be exchanged, is an error: no weight has another part unnoticed.

    What a layer puts out is an activation, also where it becomes a factor, as attention's keys. A factor that a weight
    is in without a layer, scaled by activations or added to them, is an error where it meets activations.

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
        self._leaf_sources = {id(weight): Source(False, frozenset([name])) for name, weight in weights.items()}
        self._leaf_sources.update((id(other), CONSTANT) for other in others)
        self._in_memory: dict[int, list[str]] = {}
        self._of_shape: dict[torch.Size, list[str]] = {}
        for name, weight in weights.items():
            self._in_memory.setdefault(weight.untyped_storage().data_ptr(), []).append(name)
            for shape in {weight.shape, weight.mT.shape}:
                self._of_shape.setdefault(shape, []).append(name)

    def run(self, outputs: Iterable[Tensor]) -> None:
        """Exchange the weights in the graph that ends in some tensors.

        Raises:
            PointError: a weight that cannot be exchanged; the message names it and likely causes.
        """
        sources: dict[Any, Source] = {}
        for node, before in from_the_leaves([output.grad_fn for output in outputs if output.grad_fn is not None]):
            inputs = [None if other is None else sources[other] for other in before]
            active, names, mixed = False, NOTHING, NOTHING
            for source in inputs:
                if source is not None:
                    active = active or source.active
                    if source.names:
                        names, mixed = (names, mixed | source.names) if source.active else (names | source.names, mixed)
            operation = describe(node.__class__)
            if operation.leaf:
                self.leaves.append(node.variable)
                sources[node] = self._leaf_sources.get(id(node.variable), ACTIVATION)
            elif operation.hides:
                raise PointError("activation checkpointing hides weights from a sequential rule: leave it out")
            elif operation.attends:
                self._check_attention(node, inputs)
                sources[node] = Source(active, NOTHING if active else names)
            elif operation.factors is not None:
                if active and names and not operation.factors:
                    raise _no_factor(node, names)
                sources[node] = self._product(node, operation, inputs)
            elif operation.keeps:
                if (len(names) > 1 and not operation.linear) or (active and names):
                    raise _no_factor(node, names)
                sources[node] = Source(active, (mixed if operation.linear else NOTHING) if active else names)
            else:
                if operation.hides_how and active and names and not adds_up(node, [_is_weight(one) for one in inputs]):
                    raise _no_factor(node, names)
                sources[node] = Source(active, names | mixed)

    def _product(self, node: Any, operation: Operation, inputs: Sequence[Source | None]) -> Source:
        """Exchange the weights among the factors of a product; return what its result is made from."""
        arguments = operation.factors or ()
        factors = {name: source for name, source in zip(arguments, inputs, strict=False) if name}
        learned = {name: source.names for name, source in factors.items() if source and source.names}
        weights = {name: names for name, names in learned.items() if not _is_active(factors[name])}
        activations = [name for name, source in factors.items() if _is_active(source)]
        recurrent = "hx_" in factors  # where weights meet activations within
        if len(weights) > 1 and not activations and not recurrent:
            if len(set(weights.values())) > 1 and not operation.scales:
                raise _no_factor(node, NOTHING.union(*weights.values()))
            return Source(False, NOTHING.union(*weights.values()))  # a weight times itself
        held = {name: names for name, source in factors.items() if source is None and (names := self._held(node, name))}
        names = NOTHING.union(*weights.values(), *held.values())
        for argument, own in {**weights, **held}.items():
            others = [source for name, source in factors.items() if name != argument and source is not None]
            signals = activations if operation.scales else [one for one in others if one.active or not one.names]
            if signals or (recurrent and others):
                self._exchange(node, argument, own)
        if recurrent:
            return ACTIVATION
        if activations:
            mixed = NOTHING.union(*(learned.get(name, NOTHING) for name in activations))
            if operation.scales:
                # Otherwise it is a gain, whose entries activations meet one by one: a layer of its own.
                scaled = any(is_repeated(node, activations[0], name) for name in (*weights, *held))
                return Source(True, mixed | names if scaled else mixed)
            if len(activations) > 1:
                if operation.kernel in activations:
                    mixed |= self._names_below(node.next_functions[list(arguments).index(operation.kernel)][0])
                if mixed:
                    raise _mixed(node, mixed)
            return ACTIVATION if names or len(activations) > 1 else Source(True, mixed)
        if operation.scales:
            return Source(bool(held), names)
        if not names:
            return ACTIVATION if None in inputs or not arguments else CONSTANT
        by_parameters = any(source == CONSTANT for source in factors.values())
        return Source(True, names if held or by_parameters or operation.left in weights else NOTHING)

    def _check_attention(self, node: Any, inputs: Sequence[Source | None]) -> None:
        """Check that queries, keys and values are activations: their derivatives come from all that is kept."""
        parts = dict(zip(("query", "key", "value"), inputs, strict=False))
        names = {name: source.names if source else self._held(node, name) for name, source in parts.items()}
        for name, own in names.items():
            if own and any(_is_active(source) for other, source in parts.items() if other != name):
                raise PointError(
                    f"{_listed(own)} are part of fused attention's {name}, where they cannot be exchanged: leave fused"
                    " kernels out (torch.nn.attention.sdpa_kernel(SDPBackend.MATH)), or name weights to exchange with"
                    " `weights`"
                )

    def _held(self, node: Any, argument: str) -> frozenset[str]:
        """Return the weights that a constant factor is, for the graph shows none that was detached or frozen."""
        tensor = getattr(node, f"_saved_{argument}", None)
        if tensor is None or tensor.layout != torch.strided:
            return NOTHING
        if not (tensor.is_floating_point() or tensor.is_complex()):
            return NOTHING
        if torch._is_zerotensor(tensor):  # has no memory, as the derivative of a weight in torch.func.jvp
            return NOTHING
        same = self._in_memory.get(tensor.untyped_storage().data_ptr(), ())
        if factor := self._factor(tensor, same):
            return frozenset([factor.weight])
        others = [name for name in same if tensor.dtype != self._weights[name].dtype]
        if overlapping := [name for name in others if overlap(tensor, self._weights[name])]:
            return frozenset(overlapping)  # read as numbers of another kind
        alike = self._of_shape.get(tensor.shape, ())
        return frozenset(name for name in alike if _same_numbers(tensor, self._weights[name]))

    def _names_below(self, node: Any) -> frozenset[str]:
        """Return the weights that a node was made from, in whatever way."""
        leaves = (below.variable for below in nodes_below([node]) if describe(below.__class__).leaf)
        return NOTHING.union(*(self._leaf_sources.get(id(leaf), CONSTANT).names for leaf in leaves))

    def _exchange(self, node: Any, argument: str, names: frozenset[str]) -> None:
        """Exchange a factor of a product, which was made from some weights."""
        found: list[str] = []
        in_graph = getattr(node, f"_saved_{argument}")

        def pack(tensor: Tensor) -> Any:
            if factor := self._factor(tensor, names):
                found.append(factor.weight)
                return factor
            try:
                function = LinearFunction(in_graph)
            except (ValueError, RuntimeError):  # not linear, or by operations without a second derivative
                return tensor
            found.extend(names)
            return _Mixture(function, sorted(names))

        try:
            getattr(node, f"_raw_saved_{argument}").register_hooks(pack, self._unpack)
        except RuntimeError as error:
            if "freed" in str(error):
                raise
            raise PointError(
                f"{_listed(names)} cannot be exchanged under other hooks on saved tensors, as activation checkpointing"
                " and save_on_cpu have them: leave those out"
            ) from None
        if not found:
            raise _no_factor(node, names)

    def _unpack(self, kept: Any) -> Tensor:
        if isinstance(kept, Factor):
            return kept.of(self._feedback(kept.weight))
        if isinstance(kept, _Mixture):
            others = [self._feedback(name) for name in kept.weights]
            return kept.function.with_others([self._weights[name] for name in kept.weights], others)
        assert isinstance(kept, Tensor)
        return kept

    def _factor(self, tensor: Tensor, names: Iterable[str]) -> Factor | None:
        """Find the weight whose memory a tensor lies in; one memory may hold several."""
        if tensor.layout != torch.strided:
            return None
        memory = tensor.untyped_storage().data_ptr()
        for name in names:
            weight = self._weights[name]
            held = weight.untyped_storage().data_ptr() == memory
            if held and (factor := Factor.found(name, weight, tensor)):
                return factor
        return None


def declare_product(function: type[torch.autograd.Function]) -> None:
    """Declare that an autograd function multiplies what it is given by constants, or adds it up with such factors.

    Of a function that PyTorch does not define, a graph does not tell whether its result is still made of weights alone.
    That of a declared one counts as an activation, as that of a layer's product with constant inputs does.
    """
    PRODUCTS[function.__name__] = ()
    describe.cache_clear()


def _same_numbers(tensor: Tensor, weight: Tensor) -> bool:
    """Whether a constant is a copy of a weight, transposed or in another precision, which the graph does not tell.

    Of a weight whose entries are all equal, as of one that begins at zero, numbers do not tell it either.
    """
    if tensor.is_complex() != weight.is_complex():
        return False
    turned = tensor if tensor.shape == weight.shape else tensor.mT
    values = weight.detach().to(tensor)
    return torch.equal(turned, values) and not bool((values == values.flatten()[0]).all())


def _is_active(source: Source | None) -> bool:
    return source is not None and source.active


def _is_weight(source: Source | None) -> bool:
    return source is not None and bool(source.names) and not source.active


def _listed(names: Iterable[str]) -> str:
    return f"weight(s) {', '.join(sorted(names))}"


def _no_factor(node: Any, names: Iterable[str]) -> PointError:
    return PointError(
        f"{_listed(names)} reach {type(node).__name__} through a function that is not linear, which a sequential"
        " rule cannot exchange (weight_norm, spectral_norm, standardised convolutions, fused or compiled layers): use"
        " weights as they are, or name those to exchange with `weights`"
    )


def _mixed(node: Any, names: Iterable[str]) -> PointError:
    return PointError(
        f"{_listed(names)} are one factor of {type(node).__name__} together with activations or constants, and a"
        " sequential rule cannot tell what takes its place (modulated or generated weights, fast weights): apply a"
        " layer to it first, or name weights to exchange with `weights`"
    )
