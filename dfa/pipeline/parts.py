"""Cutting a model into the parts that the stages of a pipeline run."""

import inspect
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn

from dfa.errors import PointError
from dfa.hooks.outputs import map_tensors
from dfa.patterns import find_modules


class _Reached(Exception):
    """The first module of the next part has been reached, with these arguments."""

    def __init__(self, arguments: tuple[Any, ...]) -> None:
        super().__init__()
        self.arguments = arguments


class _Earlier(Tensor):
    """Stands for a value of an earlier part; whatever is computed from it is one, too, so that none gets by unseen."""

    @classmethod
    def __torch_function__(
        cls, function: Callable[..., Any], types: Any, arguments: Sequence[Any] = (), named: Any = None
    ) -> Any:
        name = function.__name__
        if name in ("__get__", "size", "dim", "numel", "__len__") or name.startswith("is_"):  # shapes, types, devices
            result = super().__torch_function__(function, types, arguments, named or {})
            if not isinstance(result, Tensor):
                return result
        if name == "__setitem__":
            raise PointError("a value of an earlier part is written into a tensor")
        found: list[Tensor] = []
        map_tensors((tuple(arguments), named or {}), found.append)
        return next(value for value in found if isinstance(value, cls))


class _Passing(nn.Module):
    """Stands for a module of an earlier part, in the code that runs before this part begins."""

    def forward(self, *arguments: Any, **named: Any) -> Any:
        return next(iter((*arguments, *named.values())))


class _End(nn.Module):
    """Stands for the first module of the next part."""

    def forward(self, *arguments: Any, **named: Any) -> Any:
        if named:
            raise PointError(f"a part cannot begin at a module that is called with keywords ({', '.join(named)})")
        raise _Reached(arguments)


class Part(nn.Module):
    """One part of a model: its forward takes what its first module is called with, and returns what the next one is.

    Attributes:
        model: the model, in which modules of other parts are stand-ins without parameters; names stay the same.
        number: of this part, from 0.
        ends: name of every module of the whole model → number of the part that its output comes from.
        links_entry: whether gradients with respect to what this part is given can be asked for.
        entry: what this part was given, a leaf, where they can.
    """

    def __init__(self, model: nn.Module, number: int, stages: dict[str, int], begins: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.number = number
        self.ends = {name: max(_held(name, stages)) for name in stages}
        self.links_entry = False
        self.entry: Tensor | None = None
        self._begin = begins[number]
        self._received: tuple[Any, ...] | None = None
        for name in _outside(model, number, stages):
            model.set_submodule(name, _End() if name == begins[number + 1] else _Passing())
        if number > 0:
            model.get_submodule(self._begin).register_forward_pre_hook(self._enter, prepend=True)

    def forward(self, *arguments: Any, **named: Any) -> Any:
        """Run this part on what the part before returned; the first part, on the model's own arguments.

        Raises:
            PointError: the part needs something of earlier parts that its first module is not called with.
        """
        # Not the model's hooks, which would see the part as a whole forward pass.
        if self.number == 0:
            return self._run(arguments, named)
        self._received = arguments
        try:
            output = self._run(self._earlier(arguments), named)
        except Exception as error:
            if self._received is None or isinstance(error, PointError):
                raise
            raise PointError(f"the code before '{self._begin}' does not run without its modules: {error}") from error
        finally:
            self._received = None
        leaks: list[Tensor] = []
        map_tensors(output, lambda value: leaks.append(value) if isinstance(value, _Earlier) else None)
        if leaks:
            raise PointError(f"the model cannot be cut at '{self._begin}': a value from before is used after it")
        return output

    def _run(self, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        try:
            return self.model.forward(*arguments, **named)
        except _Reached as end:
            return end.arguments[0] if len(end.arguments) == 1 else end.arguments

    def _earlier(self, received: tuple[Any, ...]) -> tuple[Any, ...]:
        """Stand-ins for the model's own arguments."""
        parameters = inspect.signature(self.model.forward).parameters.values()
        positional = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
        needed = sum(each.kind in positional and each.default is inspect.Parameter.empty for each in parameters)
        return (received[0].detach().as_subclass(_Earlier),) * max(1, needed)

    def _enter(self, module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        received, self._received = self._received, None
        if received is None:
            return arguments
        if not (self.links_entry and torch.is_grad_enabled()):
            return received
        self.entry = received[0].detach().requires_grad_()
        return (self.entry.clone(), *received[1:])  # which may be written to further up


def cut(model: nn.Module, at: Sequence[str], number: int) -> Part:
    """Cut a model into `len(at) + 1` parts and keep one of them; the memory of the others is freed.

    Modules belong to parts in the order in which the model defines them, which has to be the order in which it runs
    them. The model is changed: modules of other parts give way to stand-ins without parameters. All that a part needs
    of earlier parts has to come through the arguments of its first module. Make a rule before, so that its patterns
    meet the whole model.

    Args:
        model: any module whose parts run one after the other.
        at: names of the first modules of the second part, the third and so on.
        number: of the part to keep, from 0.

    Raises:
        PointError: an unknown name, names out of order, a number without a part, or parts that share parameters.
    """
    names = [name for name, _ in model.named_modules(remove_duplicate=False)]
    for name in at:
        find_modules(model, name)
    places = [names.index(name) for name in at if name and name in names]
    if not places or len(places) < len(at) or places != sorted(set(places)):
        raise PointError(f"a cut needs names of modules in the order of the model, not {', '.join(at) or 'none'}")
    if not 0 <= number <= len(at):
        raise PointError(f"there is no part {number}: {len(at)} cut(s) make {len(at) + 1} parts, from 0")
    stages = {name: sum(place <= index for place in places) for index, name in enumerate(names)}
    _check_nothing_shared(model, stages)
    return Part(model, number, stages, ["", *at, ""])


def _held(name: str, stages: dict[str, int]) -> set[int]:
    """Numbers of the parts that a module and all that it holds belong to."""
    return {stage for other, stage in stages.items() if not name or f"{other}.".startswith(f"{name}.")}


def _outside(model: nn.Module, number: int, stages: dict[str, int]) -> list[str]:
    """Name the modules that lie in other parts with all that they hold, without those inside them."""
    found: list[str] = []
    for name, module in model.named_modules(remove_duplicate=False):
        inside = any(name.startswith(f"{outer}.") for outer in found)
        only_iterated = isinstance(module, (nn.ModuleList, nn.ModuleDict))
        if name and not inside and not only_iterated and number not in _held(name, stages):
            found.append(name)
    return found


def _check_nothing_shared(model: nn.Module, stages: dict[str, int]) -> None:
    held: dict[int, set[nn.Parameter]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        held.setdefault(stages[name], set()).update(module.parameters(recurse=False))
    for (first, ours), (second, theirs) in combinations(held.items(), 2):
        if shared := [name for name, parameter in model.named_parameters() if parameter in ours & theirs]:
            raise PointError(f"parts {first} and {second} share the parameter '{shared[0]}'")
