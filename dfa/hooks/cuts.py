"""Which of the modules whose output is cut have run, and whether those that have not are still there."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from weakref import WeakSet

from torch import nn

from dfa.compiling import hidden, older_graph
from dfa.errors import PointError
from dfa.patterns import find_modules, wrapped_module


class Cuts:
    """Keeps account of modules that a rule changes something at: feedback points and silent ones, whose output is cut.

    A forward pass may leave some out, as layer drop does. But one whose module has been replaced would let through a
    gradient from then on.

    Args:
        model: which the modules are part of.
        points: feedback points, by name.
        silent: silent modules, by name.
        kind: what the points are, for messages.
        done: what is done at them.
    """

    def __init__(
        self,
        model: nn.Module,
        points: Mapping[str, nn.Module],
        silent: Mapping[str, nn.Module],
        *,
        kind: str = "feedback point(s)",
        done: str = "cut",
    ) -> None:
        self._kind, self._done = kind, done
        modules = {**silent, **points}
        self._names, self._points = list(modules), list(points)
        self._model, self._modules = hidden(model), hidden(modules)
        self._ever, self._ran = dict.fromkeys(modules, False), dict.fromkeys(modules, False)
        self._left_out: dict[str, bool] = {}

    @property
    def reached(self) -> dict[str, bool]:
        """For each feedback point, whether it has ever run."""
        return {name: self._ever[name] for name in self._points}

    def begin_pass(self) -> None:
        """Begin a forward pass."""
        self._ran = dict.fromkeys(self._names, False)

    def end_pass(self) -> None:
        """End a forward pass, and note what it has left out."""
        for name, ran in self._ran.items():
            if not ran:
                self._left_out[name] = True

    def note(self, name: str) -> None:
        """Note that a module has run; written without reading, which torch.compile would guard."""
        self._ever[name] = self._ran[name] = True

    def check(self) -> None:
        """Check that all points have run, and that what was left out since the last check is still part of the model.

        Raises:
            PointError: a point was reached by no forward pass with gradients since the rule was made, or a module has
                been taken out of the model.
        """
        if missing := [name for name, reached in self.reached.items() if not reached]:
            raise PointError(f"{self._kind} never reached by a forward pass: {', '.join(missing)}{older_graph()}")
        left_out = [name for name in self._names if name in self._left_out or not self._ran[name]]
        self._ran, self._left_out = dict.fromkeys(self._names, False), {}
        if left_out and (gone := self._gone(left_out)):
            raise PointError(
                f"no longer part of the model, in whose place nothing is {self._done}: {', '.join(gone)}; close() the"
                " rule and make it anew on the model as it is"
            )

    def _gone(self, names: Sequence[str]) -> list[str]:
        parts, modules = list(self._model().modules()), self._modules()
        return [name for name in names if not any(modules[name] is part for part in parts)]


class AddedModules:
    """Looks for modules that have come into a model since its rule was made, and that the rule's patterns name.

    Args:
        model: which they may come into.
        patterns: of the modules whose output is cut.
    """

    def __init__(self, model: nn.Module, patterns: Iterable[str | Sequence[str]]) -> None:
        self._model, self._seen = hidden(model), hidden(WeakSet(model.modules()))
        self._patterns = list(patterns)

    def check(self) -> None:
        """Check that there are none.

        Raises:
            PointError: there are, or one has been put around a point: at such modules nothing is cut.
        """
        modules, seen = list(self._model().modules()), self._seen()
        if all(module in seen for module in modules):
            return
        if added := [name for name, module in self._find() if _inside(module) not in seen]:
            raise PointError(
                f"added after the rule was made, so that nothing is cut there: {', '.join(added)}; close() the rule and"
                " make it anew on the model as it is"
            )
        seen.update(modules)

    def _find(self) -> Iterator[tuple[str, nn.Module]]:
        for patterns in self._patterns:
            with suppress(PointError):  # a wrapper may have changed all names that a pattern matched
                yield from find_modules(self._model(), patterns).items()


def _inside(module: nn.Module) -> nn.Module:
    """Return the module within those that hand its output on as it is: compiled, checkpointed, alone in a sequence."""
    alone = module[0] if type(module) is nn.Sequential and len(module) == 1 else None
    inner = wrapped_module(module) or getattr(module, "_checkpoint_wrapped_module", alone)
    return _inside(inner) if isinstance(inner, nn.Module) else module
