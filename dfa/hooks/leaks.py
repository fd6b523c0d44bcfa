"""What running a segment again would get wrong: arguments that it changes, and results that it leaves behind."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

from dfa.errors import PointError
from dfa.hooks.outputs import PLAIN, parts_of, reachable, tensors_in
from dfa.patterns import is_compiled

_LARGEST = 2000
"""Parts of an argument that are looked at."""


class MutableArguments:
    """Objects among a segment's arguments that may change as it runs, such as a cache of keys and values.

    Args:
        segment: its name.
        arguments: positional and keyword ones.
    """

    def __init__(self, segment: str, arguments: tuple[tuple[Any, ...], dict[str, Any]]) -> None:
        self._segment = segment
        named = {f"argument {index + 1}": value for index, value in enumerate(arguments[0])}
        named |= {f"argument '{name}'": value for name, value in arguments[1].items()}
        self._objects = {name: value for name, value in named.items() if not isinstance(value, (Tensor, *PLAIN))}

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Run a block that is to leave them as they are.

        Raises:
            PointError: one has changed, whether or not the block ended in another error.
        """
        if not self._objects:
            yield
            return
        before = {name: state_of(value) for name, value in self._objects.items()}
        try:
            yield
        finally:
            for name, value in self._objects.items():
                if state_of(value) != before[name]:
                    raise self._changes(name)

    def check_not_in(self, tensor: Tensor) -> None:
        """Check that a tensor, which the segment has computed, is in none of them.

        Raises:
            PointError: it is.
        """
        for name, value in self._objects.items():
            if any(part is tensor for part in reachable(value)):
                raise self._changes(name)

    def _changes(self, name: str) -> PointError:
        return PointError(
            f"segment '{self._segment}' changes its {name} ({type(self._objects[name]).__name__}) whenever it runs, and"
            " memory='recompute' runs it twice: where it is a cache of keys and values, call the model with"
            " use_cache=False, or take memory='keep'"
        )


def state_of(value: Any) -> list[Any]:
    """List what an object holds: plain values, tensors by identity and version, containers by their length."""
    state: list[Any] = []
    for part in islice(reachable(value), _LARGEST):
        if isinstance(part, Tensor):
            state.append((id(part), part._version))
        else:
            state.append(part if isinstance(part, PLAIN) else (type(part).__name__, len(parts_of(part))))
    return state


class InnerResults(TorchFunctionMode):
    """What is computed inside a segment, to see whether any of it is alive when the segment has ended.

    Run without a graph, such a tensor has no gradient. A loss that is computed from it, as one that balances experts,
    would teach the segment nothing. What depends on nothing that learns, has been detached, or was computed under
    `torch.no_grad()` may be kept.

    Args:
        segment: its name.
        module: that is watched from `start` to `stop`.
        arguments: of the module, positional and keyword ones; what they hold before it runs outlives it rightly.
        within: whether another module of the segment, which learns, has computed the arguments.
    """

    def __init__(self, segment: str, module: nn.Module, arguments: Any, within: bool = False) -> None:
        super().__init__()
        self._segment, self._module = segment, module
        self._arguments = MutableArguments(segment, arguments)
        given = tensors_in(arguments)
        held = (part for part in reachable(arguments) if isinstance(part, Tensor))
        self._outside = {id(tensor) for tensor in [*given, *held, *module.parameters(), *module.buffers()]}
        self._depending = WeakIdKeyDictionary()
        for tensor in given:
            if within or tensor.requires_grad:
                self._depending[tensor] = ""
        # The compiler knows no such modes, and would compile anew.
        self._watches = not any(is_compiled(part) for part in module.modules())
        self._running = self._in_no_grad = False

    def start(self) -> None:
        """Begin to watch."""
        if self._watches:
            self._running = True
            self.__enter__()

    def stop(self) -> None:
        """End it."""
        if self._running:
            self._running = False
            self.__exit__(None, None, None)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch._C._set_grad_enabled:
            # The segment runs without a graph, so that `no_grad` disables gradients when it begins and when it ends.
            self._in_no_grad = not (args[0] or self._in_no_grad)
        detached = self._in_no_grad or func in _DETACHING
        passes_on = not detached and any(map(self.depends, [*_tensors_among(args), *_tensors_among(kwargs)]))
        result = func(*args, **(kwargs or {}))
        if passes_on:
            for tensor in _tensors_among(result):
                if (tensor.is_floating_point() or tensor.is_complex()) and not tensor.is_meta:
                    self._depending[tensor] = getattr(func, "__name__", "")
        return result

    def depends(self, tensor: Tensor) -> bool:
        """Whether a tensor was computed from what learns, as far as it was watched."""
        return tensor.requires_grad or tensor in self._depending

    def check(self, output: Any) -> None:
        """Check that nothing is alive but the segment's output.

        Raises:
            PointError: something is.
        """
        self._outside |= {id(tensor) for tensor in [*tensors_in(output), *_computed_weights(self._module)]}
        for tensor, made_by in self._depending.items():
            if id(tensor) not in self._outside:
                self._arguments.check_not_in(tensor)
                raise PointError(
                    f"segment '{self._segment}': a tensor of shape {tuple(tensor.shape)}, computed by '{made_by}', is"
                    " kept beyond the segment, where memory='recompute' has no gradient for a loss that is computed"
                    " from it: keep it detached, do without the cache that it may be for, or take memory='keep'"
                )


def _computed_weights(module: nn.Module) -> list[Any]:
    """List what PyTorch's older hooks compute from parameters before every call (weight_norm, pruning, …)."""
    endings = ("_orig", "_v")
    return [
        getattr(part, name.removesuffix(ending), None)
        for part in module.modules()
        for name in part._parameters
        for ending in endings
        if name.endswith(ending)
    ]


_DETACHING = (Tensor.detach, Tensor.detach_, torch.detach, Tensor.data.__get__)  # type: ignore[attr-defined]


def _tensors_among(values: Any) -> list[Tensor]:
    """List the tensors that a function of torch takes or returns: alone, or in tuples, lists and dictionaries."""
    if isinstance(values, Tensor):
        return [values]
    if isinstance(values, dict):
        values = list(values.values())
    return [tensor for value in values for tensor in _tensors_among(value)] if isinstance(values, (tuple, list)) else []
