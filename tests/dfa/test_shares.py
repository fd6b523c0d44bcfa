"""Shares of a backward pass, one after the other on the same model, against the rule's own backward pass."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import dfa
from dfa.shares import BackwardShare
from tests.dfa.reference import assert_same, gradients

ROWS = 6


class TwoNetworks(nn.Module):
    """Two networks, the second of which reads the first one's output; a layer above them, and one that both use."""

    def __init__(self, chained: bool = False) -> None:
        super().__init__()
        self.chained = chained
        self.shared = nn.Linear(5, 5)
        self.coarse, self.fine = self._network(), self._network()
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        coarse = self.coarse(self.shared(x))
        return self.head(coarse + self.fine(self.shared(x + (coarse if self.chained else coarse.detach()))))

    @staticmethod
    def _network() -> nn.Sequential:
        layers = [nn.Linear(5, 7), nn.Tanh(), nn.Dropout(0.3), nn.Linear(7, 7), nn.Tanh(), nn.Linear(7, 5)]
        return nn.Sequential(*layers)


def build(rule: str, options: dict[str, Any]) -> tuple[nn.Module, dfa.Rule]:
    torch.manual_seed(0)
    model = TwoNetworks().double()
    placement = {"points": ["coarse.1", "coarse.4", "fine.1", "fine.4"], "error_at": ["coarse", "fine"]}
    return model, dfa.RULES.build(rule, model, **{**placement, **options})


def losses(model: nn.Module) -> Tensor:
    """Two forward passes before one backward pass, as in gradient accumulation."""
    torch.manual_seed(1)
    x, targets = torch.randn(2, ROWS, 5).double(), torch.arange(ROWS) % 3
    return cross_entropy(model(x[0]), targets) + cross_entropy(model(x[1]), targets)


@pytest.mark.parametrize("of", [1, 2, 3])
@pytest.mark.parametrize(
    ("rule", "options"),
    [
        ("dfa", {}),
        ("dfa", {"sharing": "per_point", "codec": "noise:0.1"}),
        ("dfa", {"error_at": ""}),
        ("identity", {"damping": 0.5, "otherwise": "zero"}),
        ("shallow", {"error_at": ""}),
    ],
)
def test_shares_add_up(rule: str, options: dict[str, Any], of: int) -> None:
    model, whole = build(rule, options)
    whole.backward(losses(model))
    expected, learners = gradients(model), set()
    total: dict[str, Tensor] = {}
    for number in range(of):
        model, own = build(rule, options)
        BackwardShare(own, number, of).backward(losses(model))
        found = gradients(model)
        learners |= {(name, number) for name in found}
        for name, gradient in found.items():
            total[name] = total[name] + gradient if name in total else gradient
    assert_same(total, expected, tolerance=1e-12)
    assert sum(name == "head.weight" for name, _ in learners) == 1, "what lies above the error learns in one process"
    if of == 2 and rule == "dfa":
        assert {number for name, number in learners if name == "coarse.0.weight"} == {0}
        assert {number for name, number in learners if name == "coarse.3.weight"} == {1}


@pytest.mark.parametrize(("rule", "options"), [("bp", {}), ("fa", {}), ("fdfa", {}), ("dfa", {"memory": "recompute"})])
def test_rules_that_cannot_be_shared(rule: str, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.Tanh()), nn.Linear(4, 2))
    made = dfa.RULES.build(rule, model, points=["0"], **options)
    with pytest.raises(
        dfa.PointError, match=f"^the backward pass of rule '{rule}', with these options, cannot be shared"
    ):
        BackwardShare(made, 0, 2)


def test_rows_in_another_order_are_refused_in_the_second_pass() -> None:
    class Flipped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block, self.head = nn.Sequential(nn.Linear(5, 5), nn.Tanh()), nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.head(self.block(x).flip(0))
            return logits

    model = Flipped()
    share = BackwardShare(dfa.DirectFeedbackAlignment(model, "block"), 0, 2)
    share.backward(cross_entropy(model(torch.randn(ROWS, 5)), torch.arange(ROWS) % 3))
    with pytest.raises(dfa.FeedbackError, match="rows are not in the error's order"):
        model(torch.randn(ROWS, 5))


def test_a_loss_without_error() -> None:
    model, rule = build("dfa", {"error_at": ""})
    share = BackwardShare(rule, 0, 2)
    with pytest.raises(dfa.PointError, match="no forward pass with an error tensor was recorded"):
        share.backward(torch.ones((), requires_grad=True))
    kept = model(torch.ones(1, 5).double())
    with pytest.raises(dfa.PointError, match="the loss does not depend on the error tensor"):
        share.backward(torch.ones((), requires_grad=True) * 2)
    assert kept.requires_grad, "a pass is forgotten with its graph"


def test_a_block_that_is_left_out(batch: tuple[Tensor, Tensor]) -> None:
    """As layer drop does: its point gets no signal, and the shares of the others add up."""
    model = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 4), nn.Linear(4, 3)).double()
    model[1].__dict__["forward"] = lambda x: x
    found = []
    for number in range(2):
        model.zero_grad()
        with dfa.DirectFeedbackAlignment(model, ["0", "1"]) as rule:
            BackwardShare(rule, number, 2).backward(cross_entropy(model(batch[0]), batch[1]))
        found.append(gradients(model))
    model.zero_grad()
    with dfa.DirectFeedbackAlignment(model, ["0", "1"]) as rule:
        rule.backward(cross_entropy(model(batch[0]), batch[1]))
    assert_same({**found[0], **found[1]}, gradients(model), tolerance=1e-12)
    assert {key[0] for key in found[0]} == {"0"} and {key[0] for key in found[1]} == {"2"}


def test_signals_that_arrive_at_another_error_tensor() -> None:
    model, rule = build("dfa", {})
    model.chained = True  # type: ignore[assignment]
    share = BackwardShare(rule, 0, 2)
    with pytest.raises(dfa.PointError, match="signals arrive at error tensor 'coarse', too: the backward pass cannot"):
        share.backward(losses(model))
