"""What running a segment again would get wrong: arguments that it changes, and results that it leaves behind."""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from dfa.errors import PointError
from dfa.hooks.outputs import PLAIN, parts_of, tensors_in
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
                    raise PointError(
                        f"segment '{self._segment}' changes its {name} ({type(value).__name__}) whenever it"
                        " runs, and memory='recompute' runs it twice: where it is a cache of keys and values, call the"
                        " model with use_cache=False, or take memory='keep'"
                    )


def state_of(value: Any) -> list[Any]:
    """List what an object holds: plain values, tensors by identity and version, containers by their length."""
    state: list[Any] = []
    seen: set[int] = set()
    waiting = [value]
    while waiting and len(state) < _LARGEST:
        part = waiting.pop()
        if isinstance(part, Tensor):
            state.append((id(part), part._version))
        elif isinstance(part, PLAIN):
            state.append(part)
        elif id(part) not in seen and not isinstance(part, (nn.Module, type)) and not callable(part):
            seen.add(id(part))
            held = parts_of(part)
            state.append((type(part).__name__, len(held)))
            waiting += held
    return state


class InnerOutputs:
    """What the modules inside a segment put out, to see whether any of it is alive when the segment has ended.

    Run without a graph, such a tensor has no gradient. A loss that is computed from it, as one that balances experts,
    would teach the segment nothing.

    Args:
        segment: its name.
        module: whose submodules are watched until `stop`.
        arguments: of the module; they outlive it rightly.
    """

    def __init__(self, segment: str, module: nn.Module, arguments: Any) -> None:
        self._segment = segment
        self._outside = {id(tensor) for tensor in tensors_in(arguments)}
        self._outside |= {id(tensor) for tensor in [*module.parameters(), *module.buffers()]}
        self._seen: list[tuple[str, weakref.ref[Tensor]]] = []
        self._handles: list[RemovableHandle] = []
        inner = {name: part for name, part in module.named_modules() if part is not module}
        if any(is_compiled(part) for part in [module, *inner.values()]):
            return  # hooks that come and go would have it compiled anew
        for name, part in inner.items():
            self._handles.append(part.register_forward_hook(self._hook(name), prepend=True))

    def stop(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def check(self, output: Any) -> None:
        """Check that nothing is alive but the segment's output.

        Raises:
            PointError: something is.
        """
        self._outside |= {id(tensor) for tensor in tensors_in(output)}
        for name, reference in self._seen:
            tensor = reference()
            if tensor is not None and id(tensor) not in self._outside:
                raise PointError(
                    f"segment '{self._segment}': the output of '{name}' is kept beyond the segment, where"
                    " memory='recompute' has no gradient for a loss that is computed from it: keep it detached, do"
                    " without the cache that it may be for, or take memory='keep'"
                )

    def _hook(self, name: str) -> Any:
        def see(module: nn.Module, arguments: Any, output: Any) -> None:
            if not torch.compiler.is_compiling():
                self._seen += [(name, weakref.ref(tensor)) for tensor in tensors_in(output)]

        return see
