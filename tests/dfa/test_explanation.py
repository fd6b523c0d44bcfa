"""What a rule says of itself: `repr`, `explain`, and `with`."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import dfa
from tests.dfa.reference import backpropagated
from tests.dfa.steps import Batch, step

SENT = "error at 'model output' sent to"
EXPECTED: dict[str, dict[str, tuple[str, ...]]] = {
    "bp": {"0": ("true error",), "2": ("true error",), "4": ("true error",)},
    "dfa": {"0": (f"{SENT} '1'",), "2": (f"{SENT} '3'",), "4": ("true error",)},
    "fdfa": {"0": (f"{SENT} '1'",), "2": (f"{SENT} '3'",), "4": ("true error",)},
    "calibrate": {"0": (f"{SENT} '1'",), "2": (f"{SENT} '3'",), "4": ("true error",)},
    "shallow": {"0": (), "2": (), "4": ("true error",)},
    "fa": dict.fromkeys("024", ("error through feedback weights",)),
}


CASES: list[tuple[str, dict[str, Any]]] = [*((name, {}) for name in EXPECTED), ("dfa", {"memory": "recompute"})]


@pytest.mark.parametrize(("name", "options"), CASES)
def test_signals_of_a_perceptron(name: str, options: dict[str, Any], mlp: nn.Sequential, batch: Batch) -> None:
    rule = dfa.RULES.build(name, mlp, ["1", "3"], **options)
    mlp.get_parameter("2.bias").requires_grad_(False)
    found = dfa.explain(rule, lambda: cross_entropy(mlp(batch[0]), batch[1])).signals
    expected = {f"{layer}.{kind}": EXPECTED[name][layer] for layer in "024" for kind in ("weight", "bias")}
    assert found == {**expected, "2.bias": ()}
    assert all(parameter.grad is None for parameter in mlp.parameters())


@pytest.mark.parametrize("points", ["act", "inner"])
def test_signals_are_those_that_train(points: str, batch: Batch) -> None:
    """A branch past the point takes the true error to what lies below, beside the signal."""

    class Bypassed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.inner, self.act, self.head = nn.Linear(5, 6), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3)
            self.unused = nn.Linear(1, 1)

        def forward(self, x: Tensor) -> Tensor:
            stem = self.stem(x)
            return self.head(stem + self.act(self.inner(stem)))

    model = Bypassed().double()
    rule = dfa.DirectFeedbackAlignment(model, points, "head")
    explained = dfa.explain(rule, lambda: cross_entropy(model(batch[0]), batch[1]))
    trained = step(rule, model, batch)
    sent = f"error at 'head' sent to '{points}'"
    assert {name for name, signals in explained.signals.items() if signals} == trained.keys()
    assert explained.signals["stem.weight"] == ("true error", sent)
    assert explained.signals["inner.bias"] == (sent,)
    assert str(explained).splitlines() == [
        f"stem (weight, bias)    true error + {sent}",
        f"inner (weight, bias)   {sent}",
        "head (weight, bias)    true error",
        "unused (weight, bias)  nothing",
    ]


def test_what_a_rule_shows(mlp: nn.Sequential, batch: Batch) -> None:
    with dfa.DirectFeedbackAlignment(mlp, ["1", "3"]) as rule:
        assert repr(rule) == "DirectFeedbackAlignment(points: 1, 3; error at: model output; matrices: none)"
        step(rule, mlp, batch)
        assert repr(rule).endswith("matrices: (output):shared 3 × 8)")
    for name, shown in (
        ("low_rank", "(output):channel 3 × 3, (output):1 3 × 8"),
        ("fa", "0.weight 8 × 5, 2.weight 6 × 8, 4.weight 3 × 6"),
        ("kolen_pollack", "0.weight 8 × 5, 2.weight 6 × 8, 4.weight 3 × 6"),
        ("bp", "none"),
        ("calibrate", "(output):shared 3 × 8"),
    ):
        with dfa.RULES.build(name, mlp, "1") as made:
            step(made, mlp, batch), step(made, mlp, batch)
            assert repr(made).endswith(f"matrices: {shown})")


def test_matrices_that_are_never_kept_are_shown(mlp: nn.Sequential, batch: Batch) -> None:
    rule = dfa.DirectFeedbackAlignment(mlp, "1", draw="counter", keep=False)
    step(rule, mlp, batch)
    assert "(output):shared 3 × 8" in repr(rule)


def test_end_of_a_block_closes(mlp: nn.Sequential, batch: Batch) -> None:
    expected = backpropagated(mlp, lambda: cross_entropy(mlp(batch[0]), batch[1]))
    with pytest.raises(KeyError), dfa.DirectFeedbackAlignment(mlp, "1"):
        raise KeyError
    found = backpropagated(mlp, lambda: cross_entropy(mlp(batch[0]), batch[1]))
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    copy.deepcopy(mlp)
