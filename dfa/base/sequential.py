"""The frame for rules that go backwards layer by layer, as backpropagation does, but through other weights."""

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from dfa.base.rule import Patterns, Points, Rule, Uses, check_differentiable, hooks_without_points
from dfa.compiling import enter_uncompiled
from dfa.errors import PointError
from dfa.feedback.distributions import seed_of
from dfa.hooks.model import FeedbackHooks
from dfa.hooks.placing import Hook
from dfa.patterns import inner_model, matches

_REARRANGING = {
    "TBackward0", "TransposeBackward0", "PermuteBackward0", "ViewBackward0", "UnsafeViewBackward0", "AliasBackward0",
    "ReshapeAliasBackward0", "CatBackward0", "StackBackward0", "CloneBackward0", "SliceBackward0", "SelectBackward0",
    "SplitBackward0", "SplitWithSizesBackward0", "UnbindBackward0", "UnsqueezeBackward0", "SqueezeBackward1",
}  # fmt: skip
"""Autograd's names of operations that move numbers and do not change them.

There is no public way to ask whether a tensor is a rearranged weight; by graph alone, embeddings look the same.
"""
_LARGEST_COPY = 2**24
"""Entries up to which float32 holds their numbers exactly."""


@dataclass(frozen=True)
class _View:
    """A weight, or a view of one, that autograd saved: the same view of the feedback weight replaces it."""

    weight: str
    size: torch.Size
    stride: tuple[int, ...]
    offset: int


@dataclass(frozen=True)
class _Copy:
    """A rearranged copy of weights: each entry's position in the copy, counted from 1, or 0 where it is absent."""

    positions: dict[str, Tensor]
    size: torch.Size
    dtype: torch.dtype
    device: torch.device


class SequentialRule(Rule):
    """Backpropagation in which feedback weights of the same shape replace the weights W in the backward pass.

    For y = W x autograd computes ∂L/∂W from x and ∂L/∂x from W, and saves both during the forward pass; of the saved
    tensors, those that are W are replaced by `feedback_weight`, whatever the operation: linear layers, convolutions,
    attention's projections, graph convolutions. All else is exact: activations, normalisations, attention patterns,
    propagation along edges, and ∂L/∂W given the signal.

    Points are checked and not used, for nothing is cut.

    Args:
        model, points, error_at, silent: see `Rule`.
        weights: name patterns of the parameters that count as weights, of those with two dimensions or more.

    Attributes:
        replaced: names of the weights that the last `backward` went through.

    Raises:
        PointError: no parameter matches; in a forward pass, under autocast or torch.compile, whose copies of the
            weights cannot be replaced.
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
        self.replaced: set[str] = set()
        self._saving = ExitStack()
        self._names: dict[int, str] = {}  # by the address of a weight's storage, which its views share
        self._ids = {id(weight): name for name, weight in self.weights.items()}
        self._handles = [
            model.register_forward_pre_hook(Hook(self._enter), prepend=True),
            model.register_forward_hook(Hook(self._leave), always_call=True),
        ]

    @property
    def uses(self) -> Uses:
        return Uses(sequential=True)

    def _make_hooks(self, points: Points, error_at: Patterns, silent: Patterns) -> FeedbackHooks:
        return hooks_without_points(self.model, points, error_at, silent)

    def feedback_weight(self, name: str) -> Tensor:
        """Return the tensor that replaces the weight `name`, in its shape and memory layout."""
        raise NotImplementedError

    def backward(self, loss: Tensor) -> None:
        check_differentiable(loss)
        self.replaced.clear()
        loss.backward()

    def _stored(self) -> dict[str, Tensor]:
        """Return the tensors saved with a checkpoint, one for each weight."""
        raise NotImplementedError

    def _stored_for(self, name: str) -> Tensor:
        """Return the tensor stored for the weight `name`, in its present device, type and memory layout."""
        stored, weight = self._stored(), self.weights[name]
        tensor = stored[name]
        if (tensor.device, tensor.dtype, tensor.stride()) != (weight.device, weight.dtype, weight.stride()):
            tensor = stored[name] = torch.empty_like(weight, requires_grad=False).copy_(tensor)
        return tensor

    def state_dict(self) -> dict[str, Any]:
        return dict(self._stored())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        stored = self._stored()
        if state.keys() != stored.keys():
            raise ValueError(
                f"rule '{self.name}' needs the state of {', '.join(stored)}, but was given {sorted(state)}"
            )
        for name in stored:
            self._stored_for(name).copy_(state[name])

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()
        super().close()

    def _enter(self, module: nn.Module, arguments: Any) -> None:
        self._saving.close()
        if self.hooks.mode == "off" or not torch.is_grad_enabled():
            return
        enter_uncompiled(self._saving, self.name)
        self._names = {weight.untyped_storage().data_ptr(): name for name, weight in self.weights.items()}
        self._saving.enter_context(saved_tensors_hooks(self._pack, self._unpack))

    def _leave(self, module: nn.Module, arguments: Any, output: Any) -> None:
        self._saving.close()

    def _pack(self, tensor: Tensor) -> Any:
        """Replace a tensor that autograd saves by a note of the weights that it consists of."""
        if tensor.layout != torch.strided:
            return tensor
        name = self._names.get(tensor.untyped_storage().data_ptr())
        if name is not None:
            offset = int(tensor.storage_offset() - self.weights[name].storage_offset())
            return _View(name, tensor.size(), tensor.stride(), offset)
        sources = self._sources(tensor)
        return _positions(tensor, sources) if sources else tensor

    def _unpack(self, kept: Any) -> Tensor:
        """Replace such a note by the feedback weights."""
        if isinstance(kept, _View):
            self.replaced.add(kept.weight)
            feedback = self.feedback_weight(kept.weight)
            return feedback.as_strided(kept.size, kept.stride, feedback.storage_offset() + kept.offset)
        if isinstance(kept, _Copy):
            self.replaced.update(kept.positions)
            flat = torch.empty(kept.size.numel(), dtype=kept.dtype, device=kept.device)
            for name, positions in kept.positions.items():
                present = positions > 0
                flat[positions[present] - 1] = self.feedback_weight(name)[present]
            return flat.view(kept.size)
        assert isinstance(kept, Tensor)
        return kept

    def _sources(self, tensor: Tensor) -> dict[str, Tensor]:
        """Find the weights that a tensor is a rearrangement of; none where it is anything else."""
        sources: dict[str, Tensor] = {}
        waiting = [tensor.grad_fn]
        while waiting:
            step = waiting.pop()
            kind = type(step).__name__
            if name := self._ids.get(id(getattr(step, "variable", None))):
                sources[name] = self.weights[name]
            elif kind == "ToCopyBackward0":  # of a weight; where it is of an activation, the walk ends in {}
                waiting += [before for before, _ in step.next_functions]  # type: ignore[union-attr]
                sources[""] = tensor
            elif kind in _REARRANGING:
                waiting += [before for before, _ in step.next_functions]  # type: ignore[union-attr]
            else:
                return {}
        if "" in sources:
            raise PointError(f"rule '{self.name}' cannot replace weights that have been cast to another precision")
        return sources


def _positions(tensor: Tensor, sources: dict[str, Tensor]) -> _Copy:
    """Number the entries of a tensor from 1; autograd carries each number back to the entry that was copied there."""
    if tensor.numel() >= _LARGEST_COPY:
        raise PointError(f"a copy of the weights {', '.join(sources)} is too large to be replaced")
    with torch.no_grad():
        numbers = torch.arange(1, tensor.numel() + 1, dtype=tensor.dtype, device=tensor.device).view(tensor.shape)
        positions = torch.autograd.grad(tensor, list(sources.values()), numbers, retain_graph=True)
    found = {name: numbers.long() for name, numbers in zip(sources, positions, strict=True)}
    return _Copy(found, tensor.size(), tensor.dtype, tensor.device)


def gaussian_like(weights: dict[str, nn.Parameter], seed: int) -> dict[str, Tensor]:
    """Draw for each weight a Gaussian tensor of its standard deviation, in its memory layout.

    A weight without spread, as one that begins at zero, counts as having 1/√inputs.
    """
    drawn = {}
    for name, weight in weights.items():
        spread = weight.detach().std().item() if weight.numel() > 1 else 0.0
        generator = torch.Generator().manual_seed(seed_of(seed, name))
        values = torch.randn(weight.shape, generator=generator) * (spread or weight[0].numel() ** -0.5)
        drawn[name] = torch.empty_like(weight, requires_grad=False).copy_(values)
    return drawn
