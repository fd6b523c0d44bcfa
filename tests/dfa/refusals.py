"""Right or refused: what every rule owes on any model."""

from collections.abc import Callable

from torch import Tensor, nn

import dfa
from tests.dfa.reference import assert_same, gradients

REFUSALS = (dfa.PointError, dfa.FeedbackError)


def assert_right_or_refused(train: Callable[[], dict[str, Tensor]], expected: dict[str, Tensor]) -> None:
    """Training gives the gradients that the rule's name promises, or one line that says why not."""
    try:
        found = train()
    except REFUSALS as error:
        assert "\n" not in str(error)
        return
    assert_same(found, expected, tolerance=1e-5)


def one_step(rule: dfa.Rule, model: nn.Module, loss: Callable[[], Tensor]) -> dict[str, Tensor]:
    """Gradients of one step."""
    model.zero_grad()
    rule.backward(loss())
    return gradients(model)
