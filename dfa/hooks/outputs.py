"""Tensors inside what modules take and return: alone, or in nested tuples, lists and dictionaries."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from dfa.errors import PointError


def first_tensor(output: Any, owner: str) -> Tensor:
    """Return the tensor that a module's output is or begins with.

    Raises:
        PointError: there is none, or it is of a type that has no gradient; the message begins with `owner`.
    """
    first = output[0] if isinstance(output, (tuple, list)) and output else output
    if not isinstance(first, Tensor):
        raise PointError(f"{owner}: its module returns {type(output).__name__}, not a tensor")
    if not (first.is_floating_point() or first.is_complex()):
        raise PointError(f"{owner}: its output is of type {first.dtype} and has no gradient")
    return first


def replace_first(output: Any, tensor: Tensor) -> Any:
    """Return the output with `tensor` in place of its first tensor."""
    return tensor if isinstance(output, Tensor) else _rebuild(output, [tensor, *output[1:]])


def detach_all(output: Any) -> Any:
    """Return the output with every tensor in it detached."""
    return map_tensors(output, Tensor.detach)


def map_tensors(value: Any, change: Callable[[Tensor], Any]) -> Any:
    """Apply `change` to every tensor in nested tuples, lists and dictionaries."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, (tuple, list)):
        return _rebuild(value, [map_tensors(item, change) for item in value])
    if type(value) is dict:
        return {key: map_tensors(item, change) for key, item in value.items()}
    return value


def _rebuild(container: Any, items: list[Any]) -> Any:
    """Make a container of the same kind; named tuples take their fields one by one."""
    return type(container)(*items) if hasattr(container, "_fields") else type(container)(items)
