"""Putting hooks on a model: one rule at a time, and none on the model's copies."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import nn

from dfa.errors import PointError
from dfa.patterns import inner_model

_occupied: WeakKeyDictionary[nn.Module, WeakSet[nn.Module]] = WeakKeyDictionary()
"""Models that have a rule, with the modules whose output it cuts."""


def occupy(model: nn.Module, cut: Iterable[nn.Module] = ()) -> None:
    """Note that a model has a rule, which cuts the output of some of its modules.

    Raises:
        PointError: it has one already, or a part of it has, or a model that it is a part of; or one rule would cut what
            belongs to the other's model, too.
    """
    model = inner_model(model)
    parts, cut = set(model.modules()), WeakSet(cut)
    for other, cut_there in _occupied.items():
        parts_there = set(other.modules())
        if model in parts_there or other in parts:
            raise PointError("the model, or a part of it, has a rule already: close() that one first")
        if not (parts.isdisjoint(cut_there) and parts_there.isdisjoint(cut)):
            raise PointError(
                "the model shares a feedback point, or a silent module, with a model that has a rule: make one model of"
                " both, with one rule"
            )
    _occupied[model] = cut


def vacate(model: nn.Module) -> None:
    """Note that a model's rule is closed."""
    _occupied.pop(inner_model(model), None)


def check_hookable(modules: Mapping[str, nn.Module]) -> None:
    """Check that modules take hooks.

    Raises:
        PointError: one is scripted; the message names it.
    """
    for name, module in modules.items():
        if isinstance(module, torch.jit.RecursiveScriptModule):
            raise PointError(
                f"{repr(name) if name else 'the model'} is scripted (torch.jit.script), and no hook can be put on it:"
                " script modules that are neither a feedback point nor an error tensor, or none"
            )


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
