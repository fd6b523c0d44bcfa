"""The calls of a model that are under way, and the points that wait in them for their error tensor."""

import sys
import threading

import torch
from torch import nn

from dfa.errors import PointError
from dfa.hooks.points import Point

_CALL = nn.Module._call_impl.__code__
_entering = threading.Lock()


class Passes:
    """Calls of a model that train, one inside the other where the model calls itself.

    Attributes:
        pending: outputs of feedback points since the last error tensor, in the innermost call.
    """

    def __init__(self) -> None:
        self.pending: list[Point] = []
        self._outer: list[list[Point]] = []  # what was pending where each call began
        self._thread: int | None = None  # None: begun in a compiled graph, which cannot tell

    def under_way(self) -> bool:
        """Whether the module that runs now is part of a call of the model."""
        if not self._outer or torch.compiler.is_compiling():
            return bool(self._outer)
        return self._thread is None or self._thread == threading.get_ident()

    def is_evaluation(self, model: nn.Module) -> bool:
        """Whether this is part of a call of the model that began without gradients, and now takes derivatives."""
        return not self.under_way() and is_called(model)

    def begin(self, model: nn.Module) -> bool:
        """Begin a call; return whether it is the outermost.

        Raises:
            PointError: another thread is in the middle of one.
        """
        if torch.compiler.is_compiling():
            self._thread, self._outer, self.pending = None, [[]], []
            return True
        with _entering:
            if self._outer and not self._goes_on(model):
                self._outer = []  # what an interrupt has left
            outermost = not self._outer
            self._thread = threading.get_ident()
            self._outer.append([] if outermost else self.pending)
            self.pending = []
        return outermost

    def end(self) -> bool:
        """End the innermost call, also where it failed; return whether none is left."""
        if self._outer:
            self.pending = self._outer.pop()
        return not self._outer

    def _goes_on(self, model: nn.Module) -> bool:
        """Whether the call that was under way still is: this one is then inside of it."""
        here = threading.get_ident()
        if self._thread is not None and self._thread != here and _calls(model, self._thread):
            raise PointError(
                "the model is called in two threads at the same time, and a rule cannot tell their passes apart: let"
                " one wait for the other, or call it under torch.no_grad() or in rule.paused()"
            )
        return _calls(model, here) > 1


def is_called(model: nn.Module) -> bool:
    """Whether this thread is in a call of a model."""
    return _calls(model, threading.get_ident()) > 0


def _calls(model: nn.Module, thread: int) -> int:
    """Count the calls of a model that a thread is in."""
    found, frame = 0, sys._current_frames().get(thread)
    while frame is not None:
        found += frame.f_code is _CALL and frame.f_locals.get("self") is model
        frame = frame.f_back
    return found
