"""Whether something can learn from the signal of a feedback point."""

from collections.abc import Mapping, Sequence

from torch import nn

from dfa.compiling import hidden
from dfa.errors import PointError
from dfa.hooks.points import Point
from dfa.patterns import children_first, inner_model


class Trainable:
    """Looks for parameters that could learn from what is sent to a point, whatever has run.

    Layer drop may leave out a block in any forward pass, the first one and the first after a checkpoint included. So a
    point whose output has no gradient in a pass counts as trainable by the parameters of its own module, of the modules
    that the model defines between the point before and this one, and of those that hold the point: as they are, or as
    they were when the rule was made, for layers may be frozen halfway.

    Args:
        model: which the points are part of.
        points: by name.
    """

    def __init__(self, model: nn.Module, points: Mapping[str, nn.Module]) -> None:
        self._model, self._points = hidden(model), hidden(points)
        self._at_start = self._find()

    def _find(self) -> set[str]:
        return _points_that_learn(inner_model(self._model()), self._points())

    def check(self, points: Sequence[Point]) -> None:
        """Check that every signal reaches something that learns, or would if nothing were left out or frozen since.

        Args:
            points: of a forward pass.

        Raises:
            PointError: a point has no trainable parameter below it.
        """
        learning = {point.name for point in points if point.activation.requires_grad} | self._at_start
        idle = [point.name for point in points if point.name not in learning]
        if idle and (idle := [name for name in idle if name not in self._find()]):
            raise PointError(f"feedback point '{idle[0]}' has nothing below it that could learn")


def _points_that_learn(model: nn.Module, points: Mapping[str, nn.Module]) -> set[str]:
    """Return the points with a trainable parameter in them, around them or defined between them and the one before."""
    modules = dict(model.named_modules(remove_duplicate=False))
    learning = {name for name, module in modules.items() if _learns(module)}
    found = {name for name, module in points.items() if any(one.requires_grad for one in module.parameters())}
    between = False
    for name in children_first(model):
        if name in points:
            around = (name.rsplit(".", depth)[0] for depth in range(1, name.count(".") + 1))
            if between or "" in learning or any(outer in learning for outer in around):
                found.add(name)
            between = False
        else:
            between = between or name in learning
    return found


def _learns(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters(recurse=False))
