"""Whether something can learn from the signal of a feedback point."""

from collections.abc import Iterator, Mapping, Sequence

from torch import nn

from dfa.errors import PointError
from dfa.hooks.points import Point
from dfa.patterns import children_first, inner_model


class Trainable:
    """Looks for parameters that could learn from what is sent to a point, whatever has run.

    Layer drop may leave out a block in any forward pass, the first one and the first after a checkpoint included. So a
    point whose output has no gradient in a pass counts as trainable by the parameters of its own module, of the modules
    that the model defines between the point before and this one, and of those that hold the point.

    Args:
        model: which the points are part of.
        points: by name.
    """

    def __init__(self, model: nn.Module, points: Mapping[str, nn.Module]) -> None:
        # Behind functions: torch.compile traces the hooks, and must not meet the model it compiles in what they read.
        self._own = lambda name: points[name].parameters()
        self._around = lambda name: _parameters_around(inner_model(model), name, points)

    def check(self, points: Sequence[Point]) -> None:
        """Check that every signal reaches something that learns, or would if nothing were left out.

        Args:
            points: of a forward pass.

        Raises:
            PointError: a point has no trainable parameter below it.
        """
        running = {point.name for point in points if point.activation.requires_grad}
        for name in dict.fromkeys(point.name for point in points):
            if not (name in running or _learn(self._own(name)) or _learn(self._around(name))):
                raise PointError(f"feedback point '{name}' has nothing below it that could learn")


def _learn(parameters: Iterator[nn.Parameter]) -> bool:
    return any(parameter.requires_grad for parameter in parameters)


def _parameters_around(model: nn.Module, point: str, points: Mapping[str, nn.Module]) -> Iterator[nn.Parameter]:
    """Iterate over the parameters of modules that hold a point, or are defined between the one before and this one."""
    between: list[str] = []
    for name in children_first(model):
        if name == point:
            break
        if name in points:
            between = []
        else:
            between.append(name)
    parts = point.split(".")
    for name in (*between, *(".".join(parts[:depth]) for depth in range(len(parts)))):
        yield from model.get_submodule(name).parameters(recurse=False)
