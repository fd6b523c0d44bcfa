"""Calls of a model whose errors are replaced by ones that say more."""

from collections.abc import Callable
from types import TracebackType
from typing import Any

from torch import nn

Translate = Callable[[Exception, Callable[[], Any]], Exception | None]


class GuardedCalls:
    """Replaces what the calls of a model raise; a copy of the model is not guarded.

    Hooks of a module cannot do so: what they raise after an error is dropped.

    Args:
        model: whose calls are guarded until `remove`.
        translate: makes an error to be raised in the place of one, or None to let it pass. Its second argument runs the
            call once more.
    """

    def __init__(self, model: nn.Module, translate: Translate) -> None:
        self._model = model
        self._translate = translate
        self._before = model.__dict__.get("_compiled_call_impl")
        model.__dict__["_compiled_call_impl"] = self._call

    @property
    def replaces_compiled(self) -> bool:
        """Whether the guarded calls are those of a model that torch.compile has compiled in place."""
        return self._before is not None

    def remove(self) -> None:
        """End it."""
        if self._model.__dict__.get("_compiled_call_impl") == self._call:
            self._model.__dict__["_compiled_call_impl"] = self._before

    def _call(self, *args: Any, **kwargs: Any) -> Any:
        call = self._model._call_impl if self._before is None else self._before
        try:
            return call(*args, **kwargs)
        except Exception as error:
            other = self._translate(error, lambda: call(*args, **kwargs))
            if other is None:
                raise
            raise other from error


def innermost_module(model: nn.Module, trace: TracebackType | None) -> str:
    """Return the name of the module in whose code an error arose, and its type."""
    names = {id(module): name for name, module in model.named_modules()}
    found: nn.Module = model
    while trace is not None:
        module = trace.tb_frame.f_locals.get("self")
        if isinstance(module, nn.Module) and id(module) in names:
            found = module
        trace = trace.tb_next
    return f"'{names[id(found)]}' ({type(found).__name__})"
