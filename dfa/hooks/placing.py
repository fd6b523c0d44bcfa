"""Putting hooks on a model: one rule at a time, and none on the model's copies."""

from collections.abc import Callable
from typing import Any
from weakref import WeakSet

from torch import nn

from dfa.errors import PointError
from dfa.patterns import inner_model

_occupied: WeakSet[nn.Module] = WeakSet()


def occupy(model: nn.Module) -> None:
    """Note that a model has a rule.

    Raises:
        PointError: it has one already, or a part of it has, or a model that it is a part of.
    """
    model = inner_model(model)
    for other in _occupied:
        if other is model or any(part is model for part in other.modules()) or other in set(model.modules()):
            raise PointError("the model, or a part of it, has a rule already: close() that one first")
    _occupied.add(model)


def vacate(model: nn.Module) -> None:
    """Note that a model's rule is closed."""
    _occupied.discard(inner_model(model))


class Hook:
    """A hook that stays with its model: in a copy of the model, or a pickled one, it does nothing.

    Args:
        function: what is called.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)

    def __reduce__(self) -> tuple[Callable[[], Callable[..., None]], tuple[()]]:
        return _inert, ()


def _inert() -> Callable[..., None]:
    return _do_nothing


def _do_nothing(*arguments: Any) -> None:
    pass
