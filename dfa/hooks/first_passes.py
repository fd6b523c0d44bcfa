"""What a rule cannot take part in, looked for in the first passes that train, since looking is costly."""

import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointFunction
from torch.utils.hooks import RemovableHandle

from dfa.errors import PointError
from dfa.hooks.derivatives import DerivativeWatch
from dfa.hooks.guarded_calls import GuardedCalls
from dfa.hooks.outputs import tensors_in
from dfa.hooks.placing import Hook
from dfa.hooks.surroundings import check_no_transform, is_sharded
from dfa.patterns import is_compiled, wrapped_module


class FirstPasses:
    """Looks for what a rule cannot take part in, the costly checks in the first pass that trains.

    These are made once in training and once in evaluation mode: checkpoints are often for training alone. Models that
    are compiled in parts would be compiled anew for them, and are spared.

    Args:
        model: as it is when the rule is made.
    """

    def __init__(self, model: nn.Module) -> None:
        self._sharded = is_sharded(model)
        self._seen: set[bool] = set()
        self._handles: list[RemovableHandle] = []
        self._derivatives: DerivativeWatch | None = None

    def begin(self, model: nn.Module, cut: bool) -> None:
        """Begin a pass, in which the graph is cut or not.

        Raises:
            PointError: a function transform is at work, or the model was sharded after the rule was made.
        """
        check_no_transform()
        if model.training not in self._seen and cut and torch.is_grad_enabled():
            self._seen.add(model.training)
            if is_sharded(model) and not self._sharded:
                raise PointError("the model was sharded after the rule was made: first fully_shard, then the rule")
            self._handles = refuse_cut_checkpoints(model)
            if self._derivatives is None and not _compiled_in_parts(model):
                self._derivatives = DerivativeWatch(model)
                self._derivatives.__enter__()

    def note(self, point: str, below: Callable[[], Sequence[Tensor]]) -> None:
        """Note that a point has run, and what it was computed from."""
        if self._derivatives is not None:
            self._derivatives.note(point, below())

    def end(self) -> None:
        """End a pass."""
        if self._derivatives is not None:
            self._derivatives.stop()
            if self._derivatives.refused:  # and will be in the next pass
                self._seen.clear()
            self._derivatives = None
        if self._handles:
            for handle in self._handles:
                handle.remove()
            self._handles = []


def refuse_cut_checkpoints(model: nn.Module) -> list[RemovableHandle]:
    """Put hooks on a model that raise in reentrant checkpoints whose inputs have no gradient, as above a point.

    Such a checkpoint would leave all that it runs without gradient. The hooks are for one forward pass; a model that is
    compiled in parts gets none, lest it be compiled anew.

    Raises:
        PointError: in a forward pass, from within such a checkpoint.
    """
    if _compiled_in_parts(model):
        return []
    # Without the model itself: a hook that comes and goes there would change what torch iterates over.
    learning = {
        name: module
        for name, module in model.named_modules()
        if name and not isinstance(module, torch.jit.RecursiveScriptModule) and any(_learning(module))
    }
    return [module.register_forward_hook(Hook(partial(_refuse_cut, name))) for name, module in learning.items()]


def _learning(module: nn.Module) -> Iterator[bool]:
    return (parameter.requires_grad for parameter in module.parameters(recurse=False))


def _refuse_cut(name: str, *_: Any) -> None:
    frame = None if torch.is_grad_enabled() else sys._getframe()
    while frame is not None:
        if frame.f_code is CheckpointFunction.forward.__code__:
            inputs = tensors_in(frame.f_locals["args"])
            if not any(tensor.requires_grad for tensor in inputs):
                raise PointError(
                    f"a checkpoint with use_reentrant=True gives '{name}' no gradient, since its input is cut at a"
                    " feedback point: use_reentrant=False"
                )
            return
        frame = frame.f_back


def _compiled_in_parts(model: nn.Module) -> bool:
    return any(_is_compiled(module) for module in model.modules())


def _is_compiled(module: nn.Module) -> bool:
    guard = getattr(module.__dict__.get("_compiled_call_impl"), "__self__", None)
    if isinstance(guard, GuardedCalls):  # which is there for another reason
        return guard.replaces_compiled or wrapped_module(module) is not None
    return is_compiled(module)
