"""Whether an error that arrives was sent by a rule's own backward."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


class Arrivals:
    """Tells a rule's backward from a `loss.backward()` that someone has called in its place.

    Attributes:
        are_expected: whether a block of `expected` is under way.
    """

    def __init__(self) -> None:
        self.are_expected = self._told = self._ignored = False

    @contextmanager
    def expected(self) -> Iterator[None]:
        """Run a block in which errors may arrive."""
        self.are_expected = True
        try:
            yield
        finally:
            self.are_expected = False

    @contextmanager
    def ignored(self) -> Iterator[None]:
        """Run a block that asks for derivatives, and trains nothing."""
        before, self._ignored = self._ignored, True
        try:
            yield
        finally:
            self._ignored = before

    def check(self) -> bool:
        """Warn, once, where an error arrives outside of such a block; return whether it was in one."""
        if not (self.are_expected or self._told or self._ignored):
            self._told = True
            warnings.warn(
                "loss.backward() was called on a model that has a rule: call rule.backward(loss), or close() the rule;"
                " where only another model is to learn, run this one in rule.paused()",
                UserWarning,
                stacklevel=3,
            )
        return self.are_expected
