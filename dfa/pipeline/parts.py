"""Cutting a model into the parts that the stages of a pipeline run."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

from torch import nn

from dfa.errors import PointError
from dfa.patterns import find_modules


class _Reached(Exception):
    """The first module of the next part has been reached, with these arguments."""

    def __init__(self, arguments: tuple[Any, ...]) -> None:
        super().__init__()
        self.arguments = arguments


class _Passing(nn.Module):
    """Stands for a module of an earlier part, in the code that runs before this part begins."""

    def forward(self, *arguments: Any) -> Any:
        return arguments[0]


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
        stages: name of every module of the whole model → number of the part that runs it.
    """

    def __init__(self, model: nn.Module, number: int, stages: dict[str, int], begins: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.number = number
        self.stages = stages
        self._received: tuple[Any, ...] = ()
        for name in _outside(model, number, stages):
            model.set_submodule(name, _End() if name == begins[number + 1] else _Passing())
        if number > 0:
            model.get_submodule(begins[number]).register_forward_pre_hook(self._replace_arguments, prepend=True)

    def forward(self, *arguments: Any, **named: Any) -> Any:
        """Run this part on what the part before returned; the first part, on the model's own arguments."""
        self._received = arguments
        try:
            # Not the model's hooks, which would see the part as a whole forward pass.
            output = self.model.forward(*arguments, **named)
        except _Reached as end:
            output = end.arguments[0] if len(end.arguments) == 1 else end.arguments
        finally:
            self._received = ()
        return output

    def _replace_arguments(self, module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        return self._received


def cut(model: nn.Module, at: Sequence[str], number: int) -> Part:
    """Cut a model into `len(at) + 1` parts and keep one of them; the memory of the others is freed.

    Modules belong to parts in the order in which the model defines them, which has to be the order in which it runs
    them. The model is changed: modules of other parts give way to stand-ins without parameters. Code between modules
    runs in every part, and counts only between the first module of a part and that of the next, so all that a part
    needs from before has to come through the arguments of its first module. Make a rule before, so that its patterns meet
    the whole model.

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
    places = [names.index(name) for name in at if name in names]
    if len(places) < len(at) or places != sorted(set(places)) or "" in at:
        raise PointError(f"a cut needs names of modules in the order of the model, not {', '.join(at) or 'none'}")
    if not 0 <= number <= len(at):
        raise PointError(f"there is no part {number}: {len(at)} cut(s) make {len(at) + 1} part(s), from 0")
    stages = {name: sum(place <= index for place in places) for index, name in enumerate(names)}
    _check_nothing_shared(model, stages)
    return Part(model, number, stages, ["", *at, ""])


def _outside(model: nn.Module, number: int, stages: dict[str, int]) -> list[str]:
    """Name the modules that lie in other parts with all that they hold, without those inside them."""
    found: list[str] = []
    for name, module in model.named_modules(remove_duplicate=False):
        inside = any(name.startswith(f"{outer}.") for outer in found)
        held = {stage for other, stage in stages.items() if f"{other}.".startswith(f"{name}.")}
        if name and not inside and number not in held and not isinstance(module, (nn.ModuleList, nn.ModuleDict)):
            found.append(name)
    return found


def _check_nothing_shared(model: nn.Module, stages: dict[str, int]) -> None:
    held: dict[int, set[nn.Parameter]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        held.setdefault(stages[name], set()).update(module.parameters(recurse=False))
    for (first, ours), (second, theirs) in combinations(held.items(), 2):
        if shared := [name for name, parameter in model.named_parameters() if parameter in ours & theirs]:
            raise PointError(f"parts {first} and {second} share the parameter '{shared[0]}'")
