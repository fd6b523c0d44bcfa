"""The frame for rules that go backwards layer by layer, as backpropagation does, but through other weights."""

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from dfa.base.rule import Patterns, Rule, Uses, check_differentiable, idle_taps
from dfa.compiling import enter_uncompiled
from dfa.errors import PointError
from dfa.feedback.matrices import seed_of
from dfa.hooks.points import Taps
from dfa.patterns import inner_model, matches

_REARRANGING = {
    "TBackward0", "TransposeBackward0", "PermuteBackward0", "ViewBackward0", "UnsafeViewBackward0", "AliasBackward0",
    "ReshapeAliasBackward0", "CatBackward0", "StackBackward0", "CloneBackward0", "SliceBackward0", "SelectBackward0",
    "SplitBackward0", "SplitWithSizesBackward0", "UnbindBackward0", "UnsqueezeBackward0", "SqueezeBackward1",
}  # fmt: skip
"""What autograd calls the steps that put numbers elsewhere and do not change them."""
_COUNTABLE = 2**24
"""Up to here, float32 holds whole numbers exactly."""


@dataclass(frozen=True)
class _View:
    """A weight, or a part of one, in autograd's keeping: the same part of the feedback weight will take its place."""

    weight: str
    size: torch.Size
    stride: tuple[int, ...]
    offset: int


@dataclass(frozen=True)
class _Copy:
    """Weights put together elsewhere: where each number is, counted from 1, or 0 where it is not there."""

    places: dict[str, Tensor]
    size: torch.Size
    dtype: torch.dtype
    device: torch.device


class SequentialRule(Rule):
    """Backpropagation in which the weights W on the way down are replaced by feedback weights of the same shape.

    For y = W x autograd computes ∂L/∂W from x and ∂L/∂x from W. It keeps what it will need of both during the forward
    pass; here the W among what is kept is exchanged for `feedback`, whatever the operation: linear layers,
    convolutions, attention's projections, graph convolutions. All else is exact: activations, normalisations,
    attention patterns, propagation along edges, and ∂L/∂W given the signal.

    Points are checked and not used, for nothing is cut.

    Args:
        model, points, error_at, silent: see `Rule`.
        weights: name patterns of the parameters that count as weights, of those with two dimensions or more.

    Attributes:
        exchanged: names of the weights that the last `backward` met on the way down.

    Raises:
        PointError: no parameter matches; in a forward pass, under autocast or torch.compile, whose copies of the
            weights cannot be exchanged.
    """

    def __init__(
        self,
        model: nn.Module,
        points: Patterns = (),
        error_at: Patterns = "",
        silent: Patterns = (),
        *,
        weights: Patterns = "**",
    ) -> None:
        patterns = [weights] if isinstance(weights, str) else list(weights)
        named = inner_model(model).named_parameters()
        chosen = [(name, weight) for name, weight in named if any(matches(name, pattern) for pattern in patterns)]
        self.weights = {name: weight for name, weight in chosen if weight.ndim >= 2}
        if not self.weights:
            raise PointError(f"no weight of two dimensions or more matches {', '.join(patterns)}")
        super().__init__(model, points, error_at, silent)
        self.exchanged: set[str] = set()
        self._keeping = ExitStack()
        self._names: dict[int, str] = {}  # by the address of a weight's storage, which may move
        self._ids = {id(weight): name for name, weight in self.weights.items()}
        self._hooks = [
            model.register_forward_pre_hook(self._enter, prepend=True),
            model.register_forward_hook(self._leave, always_call=True),
        ]

    @property
    def uses(self) -> Uses:
        return Uses(sequential=True)

    def _tap(self, points: Patterns, error_at: Patterns, silent: Patterns) -> Taps:
        return idle_taps(self.model, points, error_at, silent)

    def feedback(self, name: str) -> Tensor:
        """What takes the place of the weight `name`, in its shape and memory layout."""
        raise NotImplementedError

    def backward(self, loss: Tensor) -> None:
        check_differentiable(loss)
        self.exchanged.clear()
        loss.backward()

    def _held(self) -> dict[str, Tensor]:
        """What is saved with a checkpoint: a tensor for each weight."""
        raise NotImplementedError

    def _held_for(self, name: str) -> Tensor:
        """What is held for the weight `name`, on its device and in its type and memory layout, which may change."""
        held, weight = self._held(), self.weights[name]
        tensor = held[name]
        if (tensor.device, tensor.dtype, tensor.stride()) != (weight.device, weight.dtype, weight.stride()):
            tensor = held[name] = torch.empty_like(weight, requires_grad=False).copy_(tensor)
        return tensor

    def state_dict(self) -> dict[str, Any]:
        return dict(self._held())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        held = self._held()
        if state.keys() != held.keys():
            raise ValueError(f"rule '{self.name}' needs the state of {', '.join(held)}, but was given {sorted(state)}")
        for name in held:
            self._held_for(name).copy_(state[name])

    def close(self) -> None:
        for hook in self._hooks:
            hook.remove()
        super().close()

    def _enter(self, module: nn.Module, arguments: Any) -> None:
        self._keeping.close()
        if self.taps.mode == "off" or not torch.is_grad_enabled():
            return
        enter_uncompiled(self._keeping, self.name)
        self._names = {weight.untyped_storage().data_ptr(): name for name, weight in self.weights.items()}
        self._keeping.enter_context(saved_tensors_hooks(self._pack, self._unpack))

    def _leave(self, module: nn.Module, arguments: Any, output: Any) -> None:
        self._keeping.close()

    def _pack(self, tensor: Tensor) -> Any:
        if tensor.layout != torch.strided:
            return tensor
        name = self._names.get(tensor.untyped_storage().data_ptr())
        if name is not None:
            offset = int(tensor.storage_offset() - self.weights[name].storage_offset())
            return _View(name, tensor.size(), tensor.stride(), offset)
        sources = self._sources(tensor)
        return _places(tensor, sources) if sources else tensor

    def _unpack(self, kept: Any) -> Tensor:
        if isinstance(kept, _View):
            self.exchanged.add(kept.weight)
            feedback = self.feedback(kept.weight)
            return feedback.as_strided(kept.size, kept.stride, feedback.storage_offset() + kept.offset)
        if isinstance(kept, _Copy):
            self.exchanged.update(kept.places)
            flat = torch.empty(kept.size.numel(), dtype=kept.dtype, device=kept.device)
            for name, places in kept.places.items():
                there = places > 0
                flat[places[there] - 1] = self.feedback(name)[there]
            return flat.view(kept.size)
        assert isinstance(kept, Tensor)
        return kept

    def _sources(self, tensor: Tensor) -> dict[str, Tensor]:
        """The weights that a tensor has been put together from, if it has from these alone."""
        sources: dict[str, Tensor] = {}
        waiting = [tensor.grad_fn]
        while waiting:
            step = waiting.pop()
            kind = type(step).__name__
            if name := self._ids.get(id(getattr(step, "variable", None))):
                sources[name] = self.weights[name]
            elif kind == "ToCopyBackward0":  # of an activation it leads to something else, and to {}
                waiting += [before for before, _ in step.next_functions]  # type: ignore[union-attr]
                sources[""] = tensor
            elif kind in _REARRANGING:
                waiting += [before for before, _ in step.next_functions]  # type: ignore[union-attr]
            else:
                return {}
        if "" in sources:
            raise PointError(f"rule '{self.name}' cannot exchange weights that have been cast to another precision")
        return sources


def _places(tensor: Tensor, sources: dict[str, Tensor]) -> _Copy:
    """Numbers the places of a tensor from 1, and lets autograd carry the numbers back to where its content is from."""
    if tensor.numel() >= _COUNTABLE:
        raise PointError(f"a copy of the weights {', '.join(sources)} is too large to be exchanged")
    with torch.no_grad():
        numbers = torch.arange(1, tensor.numel() + 1, dtype=tensor.dtype, device=tensor.device).view(tensor.shape)
        places = torch.autograd.grad(tensor, list(sources.values()), numbers, retain_graph=True)
    found = {name: numbers.long() for name, numbers in zip(sources, places, strict=True)}
    return _Copy(found, tensor.size(), tensor.dtype, tensor.device)


def gaussian_like(weights: dict[str, nn.Parameter], seed: int) -> dict[str, Tensor]:
    """For each weight a Gaussian tensor of its standard deviation and in its memory layout.

    A weight without spread, as one that begins at zero, counts as having 1/√inputs.
    """
    drawn = {}
    for name, weight in weights.items():
        spread = weight.detach().std().item() if weight.numel() > 1 else 0.0
        generator = torch.Generator().manual_seed(seed_of(seed, name))
        values = torch.randn(weight.shape, generator=generator) * (spread or weight[0].numel() ** -0.5)
        drawn[name] = torch.empty_like(weight, requires_grad=False).copy_(values)
    return drawn
