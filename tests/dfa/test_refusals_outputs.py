"""Outputs as libraries have them, and rows that must match: the error tensor that was meant, or one refusal."""

import warnings
from collections import OrderedDict, UserDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import dfa
from dfa.hooks.outputs import detach_all
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


class Slotted:
    """A state of the user's own."""

    __slots__ = ("memory",)

    def __init__(self, memory: Tensor) -> None:
        self.memory = memory


class Remembering(nn.Module):
    """Returns its output and, in an object beside it, its memory."""

    def __init__(self, wrap: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.layer, self._wrap = nn.Linear(5, 8), wrap

    def forward(self, x: Tensor) -> tuple[Tensor, Any]:
        hidden = self.layer(x).tanh()
        return hidden, self._wrap(hidden)


class Reading(nn.Module):
    """Goes on from the memory alone."""

    def __init__(self, wrap: Callable[[Tensor], Any], read: Callable[[Any], Tensor]) -> None:
        super().__init__()
        self.body, self.head, self._read = Remembering(wrap), nn.Linear(8, 3), read

    def forward(self, x: Tensor) -> Tensor:
        hidden, state = self.body(x)
        scores: Tensor = self.head(hidden + self._read(state))
        return scores


OBJECTS: dict[str, tuple[Callable[[Tensor], Any], Callable[[Any], Tensor]]] = {
    "namespace": (lambda h: SimpleNamespace(memory=h), lambda state: state.memory),
    "slots": (Slotted, lambda state: state.memory),
    "nested": (lambda h: {"state": deque([SimpleNamespace(memory=[h])])}, lambda state: state["state"][0].memory[0]),
    "mapping": (lambda h: UserDict(memory=h), lambda state: state["memory"]),
    "distribution": (lambda h: torch.distributions.Normal(h, 1.0), lambda state: state.loc),
}


@pytest.mark.parametrize("silent", [False, True])
@pytest.mark.parametrize("kind", OBJECTS)
@pytest.mark.parametrize("name", ["shallow", "dfa"])
def test_gradient_in_an_object_beside_the_first_tensor(name: str, kind: str, silent: bool, batch: Batch) -> None:
    """It would get past the cut; detached, it may go on."""
    wrap, read = OBJECTS[kind]
    for detached in (False, True):
        inner = Reading((lambda h, wrap=wrap: wrap(h.detach())) if detached else wrap, read)  # type: ignore[misc]
        model = nn.Sequential(nn.Linear(5, 5), inner).double()
        with dfa.RULES.build(name, model, "0" if silent else "1.body", silent="1.body" if silent else ()) as rule:
            if not detached:
                with pytest.raises(
                    dfa.PointError, match=r"'1\.body': its module returns a \w+ that holds a tensor with"
                ):
                    model(batch[0])
                continue
            found = one_step(rule, model, lambda: cross_entropy(model(batch[0]), batch[1]))  # noqa: B023
            assert ("1.body.layer.weight" in found) == (name == "dfa" and not silent)


@dataclass(frozen=True)
class State:
    """Keeps more than it has fields for."""

    memory: Tensor
    twice: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "twice", 2 * self.memory)
        object.__setattr__(self, "thrice", 3 * self.memory)


class Attributed(dict[str, Tensor]):
    """As outputs of transformers: what has a key is an attribute as well."""

    def __init__(self, memory: Tensor) -> None:
        super().__init__(memory=memory)
        self.memory = memory


CUT: dict[str, tuple[Callable[[Tensor], Any], Callable[[Any], Tensor]]] = {
    "keys that are no strings": (lambda h: OrderedDict({0: h}), lambda state: state[0]),
    "field of a dataclass": (State, lambda state: state.twice),
    "attribute of a dataclass": (State, lambda state: state.thrice),
    "item of a dictionary": (Attributed, lambda state: state["memory"]),
    "attribute of a dictionary": (Attributed, lambda state: state.memory),
}


@pytest.mark.parametrize("kind", CUT)
def test_no_gradient_through_a_container_beside_the_first_tensor(kind: str, batch: Batch) -> None:
    wrap, read = CUT[kind]
    model = Reading(wrap, read).double()
    plain = model(batch[0])
    kept = Attributed(plain)
    with dfa.RULES.build("shallow", model, "body") as rule:
        assert torch.equal(model(batch[0]), plain)
        rule.discard()
        found = one_step(rule, model, lambda: cross_entropy(model(batch[0]), batch[1]))
    assert set(found) == {"head.weight", "head.bias"}
    cut = detach_all(kept, "")
    assert type(cut) is Attributed and cut.memory is cut["memory"] and kept.memory is plain
