"""Outputs as libraries have them, and rows that must match: the error tensor that was meant, or one refusal."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import dfa
from tests.dfa.reference import backpropagated
from tests.dfa.refusals import assert_right_or_refused, one_step

Batch = tuple[Tensor, Tensor]
DIRECT = ["dfa", "drtp", "identity", "dkp", "low_rank", "fdfa", "grape"]


@dataclass
class Output:
    """What a model of another library returns."""

    loss: Tensor | None
    logits: Tensor


class Classifier(nn.Module):
    """Returns its scores in one container or another."""

    def __init__(self, pack: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.body, self.head = nn.Sequential(nn.Linear(5, 8), nn.Tanh()), nn.Linear(8, 3)
        self._pack = pack

    def forward(self, x: Tensor) -> Any:
        return self._pack(self.head(self.body(x)))


CONTAINERS: dict[str, tuple[Callable[[Tensor], Any], Callable[[Any], Tensor]]] = {
    "dictionary": (lambda logits: {"loss": None, "logits": logits}, lambda output: output["logits"]),
    "dataclass": (lambda logits: Output(None, logits), lambda output: output.logits),
}


@pytest.mark.parametrize("kind", CONTAINERS)
def test_field_of_an_output_as_error_tensor(kind: str, batch: Batch) -> None:
    pack, logits = CONTAINERS[kind]
    model = Classifier(pack).double()

    def loss() -> Tensor:
        return cross_entropy(logits(model(batch[0])), batch[1])

    exact = backpropagated(model, loss)
    found = one_step(dfa.DirectFeedbackAlignment(model, "body", "logits"), model, loss)
    assert torch.equal(found["head.weight"], exact["head.weight"])
    assert not torch.allclose(found["body.0.weight"], exact["body.0.weight"])


@pytest.mark.parametrize("kind", CONTAINERS)
def test_output_without_a_first_tensor_names_candidates(kind: str, batch: Batch) -> None:
    model = Classifier(CONTAINERS[kind][0]).double()
    rule = dfa.DirectFeedbackAlignment(model, "body")
    with pytest.raises(dfa.PointError, match="logits"):
        rule.backward(cross_entropy(CONTAINERS[kind][1](model(batch[0])), batch[1]))


@pytest.mark.parametrize("name", DIRECT)
def test_scalar_loss_in_front_of_the_scores_is_no_error_tensor(name: str, batch: Batch) -> None:
    """As a tuple with labels and `return_dict=False` begins."""
    model = Classifier(lambda logits: (cross_entropy(logits, batch[1]), logits)).double()
    rule = dfa.RULES.build(name, model, "body")
    with pytest.raises(dfa.PointError, match=r"scalar|dimension"):
        rule.backward(model(batch[0])[0])


NOTHING_BETWEEN: dict[str, tuple[list[str], Callable[[], nn.Sequential]]] = {
    "the output layer itself": (["1", "2"], lambda: nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))),
    "a normalisation of scores": (
        ["1", "2"],
        lambda: nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3), nn.LogSoftmax(1)),
    ),
}


@pytest.mark.parametrize("kind", NOTHING_BETWEEN)
@pytest.mark.parametrize("name", ["dfa", "dkp", "fdfa", "low_rank", "drtp"])
def test_point_with_nothing_to_train_above_it(name: str, kind: str, batch: Batch) -> None:
    """The output layer would learn from a random projection of the error that is at hand; PyG's `convs.*` does so."""
    points, make = NOTHING_BETWEEN[kind]
    model = make().double()

    def loss() -> Tensor:
        return cross_entropy(model(batch[0]), batch[1])

    exact = backpropagated(model, loss)
    rule = dfa.RULES.build(name, model, points)
    expected = {key: gradient for key, gradient in exact.items() if key.startswith("2.")}

    def train() -> dict[str, Tensor]:
        return {key: gradient for key, gradient in one_step(rule, model, loss).items() if key.startswith("2.")}

    assert_right_or_refused(train, expected)


def test_frozen_layer_above_a_point_is_something_between(batch: Batch) -> None:
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    model[2].requires_grad_(False)
    assert one_step(dfa.DirectFeedbackAlignment(model, "1"), model, lambda: cross_entropy(model(batch[0]), batch[1]))


@pytest.mark.parametrize(
    "name", ["dfa", "shallow", "drtp", "identity", "dkp", "low_rank", "fdfa", "grape", "calibrate"]
)
def test_no_points_would_be_backpropagation(name: str, mlp: nn.Sequential) -> None:
    with pytest.raises(dfa.PointError, match="point"):
        dfa.RULES.build(name, mlp)


def test_identity_that_falls_back_everywhere_says_so_once(mlp: nn.Sequential, batch: Batch) -> None:
    rule = dfa.IdentityFeedback(mlp, ["1", "3"])
    with pytest.warns(UserWarning, match="identity") as told:
        for _ in range(2):
            rule.backward(cross_entropy(mlp(batch[0]), batch[1]))
    assert len(told) == 1


def test_identity_with_a_point_of_the_errors_shape_is_silent(batch: Batch) -> None:
    model = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 4), nn.Linear(4, 3)).double()
    rule = dfa.IdentityFeedback(model, "0", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rule.backward(cross_entropy(model(batch[0]), batch[1]))


class Turning(nn.Module):
    """(batch, time, features) outside, (time, batch, features) inside."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix, self.head = nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.mix(self.embed(x).transpose(0, 1)).transpose(0, 1))


@pytest.mark.parametrize("name", ["dfa", "drtp", "dkp", "fdfa", "low_rank"])
def test_rows_in_another_order(name: str) -> None:
    """The error of one sample must not teach another: with a loss on sample 0, x of the others gets no gradient."""
    x = torch.randn(4, 3, 5, dtype=torch.double, requires_grad=True)
    targets = torch.randint(3, (3,))
    model = Turning().double()
    rule = dfa.RULES.build(name, model, "mix")
    try:
        rule.backward(cross_entropy(model(x)[0], targets))
    except (dfa.PointError, dfa.FeedbackError):
        return
    assert x.grad is not None and x.grad[0].abs().max() > 0
    assert x.grad[1:].abs().max() == 0


class TwoHeads(nn.Module):
    """A trunk that two tasks share."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(5, 8), nn.Tanh())
        self.one, self.two = nn.Linear(8, 3), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.trunk(x)
        return self.one(h), self.two(h)


@pytest.mark.parametrize("name", ["dfa", "dkp", "drtp", "fdfa"])
def test_loss_on_the_second_of_two_heads_trains_the_trunk_or_is_refused(name: str, batch: Batch) -> None:
    model = TwoHeads().double()
    rule = dfa.RULES.build(name, model, "trunk", ["one", "two"])
    try:
        rule.backward(cross_entropy(model(batch[0])[1], batch[1]))
    except dfa.PointError:
        return
    trained = model.get_parameter("trunk.0.weight").grad
    assert trained is not None and trained.abs().max() > 0
