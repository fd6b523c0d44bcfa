"""Tensors inside what modules take and return: alone, or in tuples, lists, dictionaries and dataclasses."""

import copy
from collections import deque
from collections.abc import Callable, ItemsView, Iterator, Mapping, ValuesView
from contextlib import suppress
from dataclasses import fields, is_dataclass
from functools import partial
from types import BuiltinMethodType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from dfa.errors import PointError

PLAIN = (str, bytes, int, float, complex, bool, type(None), torch.dtype, torch.device, torch.Size)
"""Types of values that hold no tensors."""


def first_tensor(output: Any, owner: str) -> Tensor:
    """Return the tensor that a module's output is or begins with.

    Raises:
        PointError: there is none, or it is a single number or of a type that has no gradient; the message begins with
            `owner`.
    """
    first = output[0] if isinstance(output, (tuple, list)) and output else output
    if not isinstance(first, Tensor):
        named = [name for name, value in fields_of(output).items() if isinstance(value, Tensor)]
        begins = "" if first is output else f" that begins with {type(first).__name__}"
        raise PointError(f"{owner}: its module returns {type(output).__name__}{begins}{_listed(named)}, not a tensor")
    return _checked(first, owner)


def replace_first(output: Any, tensor: Tensor) -> Any:
    """Return the output with `tensor` in place of its first tensor."""
    return tensor if isinstance(output, Tensor) else rebuilt(output, [tensor, *output[1:]])


def fields_of(output: Any) -> dict[str, Any]:
    """Return the values of an output that have a name; none where it is a tensor or has no names."""
    if isinstance(output, Mapping):
        return {key: value for key, value in output.items() if isinstance(key, str)}
    if is_dataclass(output) and not isinstance(output, type):
        return {field.name: getattr(output, field.name) for field in fields(output)}
    return dict(output._asdict()) if isinstance(output, tuple) and hasattr(output, "_asdict") else {}


def field_tensor(output: Any, name: str, modules: str) -> Tensor:
    """Return the field `name` of a model's output, which is to be an error tensor.

    Args:
        modules: those that the name is like, for the message.

    Raises:
        PointError: there is no such field with a tensor, or it is a single number or of a type that has no gradient.
    """
    found = fields_of(output)
    if not isinstance(found.get(name), Tensor):
        named = [field for field, value in found.items() if isinstance(value, Tensor)]
        raise PointError(
            f"error_at: '{name}' matches no module, and no field of the model's output, which is a"
            f" {type(output).__name__}{_listed(named)}; {modules}"
        )
    return _checked(found[name], f"error tensor '{name}'")


def replace_field(output: Any, name: str, tensor: Tensor) -> Any:
    """Return a copy of the output with `tensor` in the field `name`."""
    if isinstance(output, tuple):
        return output._replace(**{name: tensor})  # type: ignore[attr-defined]
    named = {name: tensor}
    return _copied(output, named, {}) if isinstance(output, dict) else _copied(output, {}, named)


def detach_all(output: Any, owner: str, detach: Callable[[Tensor], Tensor] | None = None) -> Any:
    """Return the output with every tensor in it detached, by `Tensor.detach` or what is given.

    Raises:
        PointError: an object in it holds a tensor that has a gradient, or a container holds itself; the message begins
            with `owner`.
    """

    def refuse(value: Any) -> Any:
        if isinstance(value, Iterator):
            raise PointError(
                f"{owner}: its module returns a {type(value).__name__}, and tensors with a gradient that it may yield"
                " would get past the cut: return them in a list or tuple"
            )
        if _holds_gradient(value):
            raise PointError(
                f"{owner}: its module returns a {type(value).__name__} that holds a tensor with a gradient, which would"
                " get past the cut: return that tensor detached, or in a tuple, dictionary or dataclass"
            )
        return value

    try:
        return map_tensors(output, detach or Tensor.detach, refuse)
    except RecursionError:
        raise PointError(
            f"{owner}: its module returns a container that holds itself: return its tensors in a tuple"
        ) from None


def map_tensors(
    value: Any, change: Callable[[Tensor], Any], otherwise: Callable[[Any], Any] = lambda value: value
) -> Any:
    """Apply `change` to every tensor in nested tuples, lists, dictionaries and dataclasses, `otherwise` to the rest."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, (tuple, list)):
        return rebuilt(value, [map_tensors(item, change, otherwise) for item in value])
    if type(value) is dict:
        return {key: map_tensors(item, change, otherwise) for key, item in value.items()}
    if isinstance(value, dict) or (is_dataclass(value) and not isinstance(value, type)):
        items = dict(value) if isinstance(value, dict) else {}
        attributes = {**({} if items else fields_of(value)), **getattr(value, "__dict__", {})}
        parts = [*items.values(), *attributes.values()]
        # By identity: what is an item and an attribute as well, as in outputs of Hugging Face's models, stays one.
        new = {id(part): map_tensors(part, change, otherwise) for part in {id(part): part for part in parts}.values()}
        if all(new[id(part)] is part for part in parts):
            return value
        return _copied(value, *({key: new[id(part)] for key, part in own.items()} for own in (items, attributes)))
    return otherwise(value)


def tensors_in(value: Any) -> list[Tensor]:
    """List every tensor in nested tuples, lists, dictionaries and dataclasses."""
    found: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        found.append(tensor)
        return tensor

    map_tensors(value, note)
    return found


def _holds_gradient(value: Any) -> bool:
    """Whether an object holds a tensor that was computed with a gradient, in attributes or containers."""
    return any(isinstance(part, Tensor) and part.grad_fn is not None for part in reachable(value))


def reachable(value: Any) -> Iterator[Any]:
    """Iterate over an object and all that it holds, by items, attributes, and what functions keep; not into modules."""
    seen: set[int] = set()
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, (Tensor, *PLAIN)):
            yield part
        elif id(part) not in seen and not isinstance(part, (nn.Module, type, ModuleType)):
            seen.add(id(part))
            yield part
            waiting += parts_of(part)


def parts_of(value: Any) -> list[Any]:
    """List what an object holds: the items of a container, values of a mapping, attributes, what a function keeps."""
    parts = list(value.values()) if isinstance(value, Mapping) else []
    parts += value if isinstance(value, (list, tuple, set, frozenset, deque, ValuesView, ItemsView)) else ()
    if isinstance(value, (MethodType, BuiltinMethodType)):
        parts.append(value.__self__)
    if isinstance(value, partial):
        parts += [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, FunctionType):
        with suppress(ValueError):  # a cell that is empty, as of a function that refers to itself while it is made
            parts += [cell.cell_contents for cell in value.__closure__ or ()]
        return [*parts, *(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
    parts += getattr(value, "__dict__", {}).values()
    return parts + [getattr(value, name, None) for kind in type(value).__mro__ for name in _slots(kind)]


def _slots(kind: type) -> tuple[str, ...]:
    slots = kind.__dict__.get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)


def _listed(fields: list[str]) -> str:
    return f" with the fields {', '.join(fields)}" if fields else ""


def _checked(tensor: Tensor, owner: str) -> Tensor:
    if not (tensor.is_floating_point() or tensor.is_complex()):
        raise PointError(f"{owner}: its output is of type {tensor.dtype} and has no gradient")
    if tensor.ndim == 0:
        raise PointError(f"{owner}: it is a scalar, as a loss is, and has no dimension of rows")
    return tensor


def rebuilt(container: Any, items: list[Any]) -> Any:
    """Make a container of the same kind; named tuples take their fields one by one."""
    return type(container)(*items) if hasattr(container, "_fields") else type(container)(items)


def _copied(output: Any, items: dict[Any, Any], attributes: dict[str, Any]) -> Any:
    """Make a copy of a dictionary or dataclass with other items and attributes."""
    copied = copy.copy(output)
    for key, value in items.items():
        copied[key] = value
    for name, value in attributes.items():
        object.__setattr__(copied, name, value)  # of a frozen dataclass, too
    return copied
