"""Whether an error that arrives was sent by a rule's own backward."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


class Arrivals:
    """Tells a rule's backward from a `loss.backward()` that someone has called in its place."""

    def __init__(self) -> None:
        self._expected = self._told = False

    @contextmanager
    def expected(self) -> Iterator[None]:
        """Run a block in which errors may arrive."""
        self._expected = True
        try:
            yield
        finally:
            self._expected = False

    def check(self) -> bool:
        """Warn, once, where an error arrives outside of such a block; return whether it was in one."""
        if not (self._expected or self._told):
            self._told = True
            warnings.warn(
                "loss.backward() was called on a model that has a rule: call rule.backward(loss), or close() the rule",
                UserWarning,
                stacklevel=3,
            )
        return self._expected
