"""Points in parts of a model that are called by themselves, which error tensors find by the graph between them."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor

from dfa.errors import PointError
from dfa.hooks.arrivals import Arrivals
from dfa.hooks.missing import no_point_of_its_own
from dfa.hooks.points import Point

_order = count()


class LonePoints:
    """The points of a model that ran outside of any call of it, and whose graph is alive.

    Args:
        arrivals: tells who sends the errors that arrive at them.
    """

    def __init__(self, arrivals: Arrivals) -> None:
        self._arrivals = arrivals
        self._alive: WeakSet[LonePoint] = WeakSet()
        self._refused_by = ""

    def refuse(self, reason: str) -> None:
        """Refuse errors of such points from now on, which do not go with `reason`."""
        self._refused_by = reason

    def add(self, point: Point, handed_on: Tensor) -> Tensor:
        """Add a point; return what takes the place of the tensor that it hands on."""
        lone = LonePoint(point, self, self._arrivals.check)
        self._alive.add(lone)
        return mark(lone, handed_on)

    def take(self, error: str, tensor: Tensor, pending: list[Point], targets: dict[str, str]) -> list[Point]:
        """Return the points that an error tensor finds by the graph, from itself and from its other points.

        Raises:
            PointError: there are some, and they are refused, or they belong to other error tensors and there is no
                other point.
        """
        if not self._alive:
            return []
        lone = marked_below(self, [tensor, *(point.activation for point in pending)])
        if lone and self._refused_by:
            raise outside_of_calls(lone[0].point.name, self._refused_by)
        points = of_error(error, lone, targets)
        if lone and not (points or pending):
            raise no_point_of_its_own(error)
        return points


@dataclass(eq=False)
class LonePoint:
    """A point that ran outside of any call of the model.

    Attributes:
        owner: what holds it.
        arrival: called when an error arrives at what it hands on.
        order: increases from point to point.
        errors: names of the error tensors that depend on it.
    """

    point: Point
    owner: object
    arrival: Callable[[], object]
    order: int = field(default_factory=lambda: next(_order))
    errors: set[str] = field(default_factory=set)


class _Marked(torch.autograd.Function):
    """The identity on what a point hands on; this node keeps the point alive, as long as the graph above it."""

    @staticmethod
    def forward(ctx: Any, lone: LonePoint, handed_on: Tensor) -> Tensor:
        ctx.lone = lone
        return handed_on.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        ctx.lone.arrival()
        return None, gradients[0]


def mark(lone: LonePoint, handed_on: Tensor) -> Tensor:
    """Have the graph of all that is computed from `handed_on` lead to a point."""
    marked: Tensor = _Marked.apply(lone, handed_on if handed_on.requires_grad else handed_on.requires_grad_())
    return marked


def marked_below(owner: object, tensors: list[Tensor]) -> list[LonePoint]:
    """List the points of `owner` that tensors depend on, also through other points, in the order they ran in."""
    found: list[LonePoint] = []
    seen: set[Any] = set()
    waiting: list[Any] = [tensor.grad_fn for tensor in tensors]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        lone = getattr(node, "lone", None)
        if isinstance(lone, LonePoint) and lone.owner is owner:
            found.append(lone)
            waiting.append(lone.point.activation.grad_fn)
        waiting += [before for before, _ in node.next_functions]
    return sorted(found, key=lambda lone: lone.order)


def of_error(name: str, lone: list[LonePoint], targets: dict[str, str]) -> list[Point]:
    """Take the points that belong to an error tensor: those that name it, or no error tensor has been computed from."""
    own = [one for one in lone if (targets[one.point.name] == name if targets else one.errors <= {name})]
    for one in own:
        one.errors.add(name)
    return [replace(one.point) for one in own]  # a copy, for a record may note more in it, which leads back to the mark


def outside_of_calls(point: str, reason: str) -> PointError:
    """Return the error of a point that an error needs and that ran in no call of the model."""
    return PointError(
        f"feedback point '{point}' was run outside of a call of the model, which does not go with {reason}: call the"
        " model itself, or run its parts under torch.no_grad() or in rule.paused()"
    )
