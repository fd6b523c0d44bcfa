"""Points that name their error tensors, and error tensors that are fields of a model's output."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import dfa
from tests.dfa.reference import assert_same
from tests.dfa.refusals import one_step
from tests.dfa.steps import Batch


class Crossed(nn.Module):
    """Two networks whose parts take turns, so that the next error tensor is not always a point's own."""

    def __init__(
        self,
        pack: Callable[[Tensor, Tensor], Any] = lambda one, two: (one, two),
        heads: tuple[str, str] = ("first", "second"),
    ) -> None:
        super().__init__()
        self.one, self.two = nn.Sequential(nn.Linear(5, 6), nn.Tanh()), nn.Sequential(nn.Linear(5, 8), nn.Tanh())
        self.heads = heads
        self.add_module(heads[0], nn.Linear(6, 3))
        self.add_module(heads[1], nn.Linear(8, 3))
        self._pack = pack

    def forward(self, x: Tensor) -> Any:
        one, two = self.one(x), self.two(x)
        return self._pack(self.get_submodule(self.heads[0])(one), self.get_submodule(self.heads[1])(two))


def trained_alone(model: Crossed, batch: Batch) -> dict[str, Tensor]:
    """Gradients of each network with its head; error tensors are called "first" and "second", as matrices are drawn."""
    found: dict[str, Tensor] = {}
    for network, head, error in zip(("one", "two"), model.heads, ("first", "second"), strict=True):
        alone = nn.Sequential()
        alone.add_module(network, model.get_submodule(network))
        alone.add_module(error, model.get_submodule(head))
        with dfa.DirectFeedbackAlignment(alone, network, error) as rule:
            trained = one_step(rule, alone, lambda alone=alone: cross_entropy(alone(batch[0]), batch[1]))  # type: ignore[misc]
        found |= {name.replace(error, head): gradient for name, gradient in trained.items()}
    return found


def test_points_that_name_their_error_tensors(batch: Batch) -> None:
    model = Crossed().double()
    expected = trained_alone(model, batch)

    def loss() -> Tensor:
        first, second = model(batch[0])
        return cross_entropy(first, batch[1]) + cross_entropy(second, batch[1])

    with dfa.DirectFeedbackAlignment(model, {"one": "first", "two": "second"}) as rule:
        assert_same(one_step(rule, model, loss), expected, tolerance=1e-12)
    rule = dfa.DirectFeedbackAlignment(model, ["one", "two"], ["first", "second"])
    with pytest.raises(dfa.PointError, match="'second' has no feedback point of its own"):
        loss()


def test_what_points_cannot_name() -> None:
    model = Crossed()
    with pytest.raises(dfa.PointError, match="leave nothing for error_at to say"):
        dfa.DirectFeedbackAlignment(model, {"one": "first"}, "second")
    with pytest.raises(dfa.PointError, match="point 'one' belongs to two error tensors: 'first', 'second'"):
        dfa.DirectFeedbackAlignment(model, {"one": "first", "on[e]": "second"})
    with pytest.raises(dfa.PointError, match="pattern 'three' matches no module"):
        dfa.DirectFeedbackAlignment(model, {"three": "first"})
    rule = dfa.DirectFeedbackAlignment(model, {"one": "first", "second": "first"})
    with pytest.raises(dfa.PointError, match="above the error tensor 'first': second"):
        model(torch.randn(2, 5))
    rule.close()


class Named(NamedTuple):
    first: Tensor
    second: Tensor


class Library(dict[str, Tensor]):
    """As of transformers: a dictionary with attributes."""

    def __getattr__(self, name: str) -> Tensor:
        if name not in self:
            raise AttributeError(name)
        return self[name]


@dataclass(frozen=True)
class Frozen:
    first: Tensor
    second: Tensor


PACKED: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "named tuple": Named,
    "dictionary": lambda first, second: Library(first=first, second=second),
    "frozen dataclass": Frozen,
}


@pytest.mark.parametrize("kind", PACKED)
def test_fields_as_error_tensors(kind: str, batch: Batch) -> None:
    model = Crossed(PACKED[kind], ("scores", "others")).double()  # fields are not to have the names of modules
    expected = trained_alone(model, batch)

    def loss() -> Tensor:
        output = model(batch[0])
        assert type(output) is type(PACKED[kind](torch.ones(1), torch.ones(1)))
        return cross_entropy(output.first, batch[1]) + cross_entropy(output.second, batch[1])

    found = one_step(dfa.DirectFeedbackAlignment(model, {"one": "first", "two": "second"}), model, loss)
    assert_same(found, expected, tolerance=1e-12)


def test_field_that_is_not_there(mlp: nn.Sequential, batch: Batch) -> None:
    model = Crossed(Frozen).double()
    rule = dfa.DirectFeedbackAlignment(model, "one", "firs")
    with pytest.raises(dfa.PointError, match=r"'firs' matches no module, .* fields first, second; candid.* first"):
        model(batch[0])
    rule.close()
    dfa.DirectFeedbackAlignment(mlp, "1", "logits")
    with pytest.raises(dfa.PointError, match=r"'logits' matches no module, .* which is a Tensor; candidates"):
        mlp(batch[0])


def test_a_shared_point_that_one_of_several_patterns_means_by_its_first_name() -> None:
    shared = nn.Sequential(nn.Linear(5, 5), nn.Tanh())

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.ModuleList([shared]), nn.ModuleList([shared, nn.Linear(5, 5)])
            self.head = nn.Linear(5, 3)

    with dfa.DirectFeedbackAlignment(Two(), {"one.*": "head", "two.*": "head"}) as rule:
        assert rule.hooks.points == ["one.0", "two.1"]
