"""Which parameters learn from what under a rule."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from dfa.base.rule import Rule
from dfa.base.sequential import SequentialRule
from dfa.hooks.graphs import leaves_below
from dfa.patterns import inner_model

TRUE_ERROR = "true error"
THROUGH_FEEDBACK_WEIGHTS = "error through feedback weights"
NOTHING = "nothing"


@dataclass(frozen=True)
class Explanation:
    """What every parameter learns from; as text, a table with one line for the parameters of a module.

    Attributes:
        signals: by the parameter's name; several where signals add up, none where it learns nothing.
    """

    signals: dict[str, tuple[str, ...]]

    def __str__(self) -> str:
        rows = []
        for (module, signals), group in groupby(self.signals.items(), lambda item: (_owner(item[0]), item[1])):
            names = ", ".join(name.removeprefix(f"{module}.") for name, _ in group)
            rows.append((f"{module} ({names})" if module else names, " + ".join(signals) or NOTHING))
        width = max((len(row[0]) for row in rows), default=0)
        return "\n".join(f"{name:<{width}}  {signal}" for name, signal in rows)


def explain(rule: Rule, loss: Callable[[], Tensor]) -> Explanation:
    """Say which signal reaches each parameter: the true error, the error sent to a feedback point, or none.

    One forward pass is run and read off the graph of its loss; nothing is trained. The pass counts as one of training
    for running statistics and random numbers.

    Args:
        rule: on its model. For `calibrate`, its inner rule is explained, since in exact batches all is the true error.
        loss: runs the model and returns the loss.

    Raises:
        PointError: as in any forward pass.
    """
    no_batch: AbstractContextManager[None] = nullcontext() if rule.unwrapped is rule else rule.paused()
    rule = rule.unwrapped
    sequential = isinstance(rule, SequentialRule)
    uncompiled = torch.compiler.set_stance("force_eager")
    with no_batch, rule.hooks.switched("off" if sequential else "describe"), torch.enable_grad(), uncompiled:
        value = loss()
        records = rule.hooks.records
    found: dict[Tensor, list[str]] = {}
    ways = [(THROUGH_FEEDBACK_WEIGHTS if sequential else TRUE_ERROR, value)]
    ways += [
        (f"error at '{record.error_name or 'model output'}' sent to '{point.name}'", point.activation)
        for record in records
        for point in record.points
    ]
    for signal, tensor in ways:
        for parameter in leaves_below(tensor):
            if signal not in found.setdefault(parameter, []):  # a point may fire several times
                found[parameter].append(signal)
    named = inner_model(rule.model).named_parameters()
    return Explanation({name: tuple(found.get(parameter, ())) for name, parameter in named})


def _owner(name: str) -> str:
    return name.rpartition(".")[0]
