"""What a module returns beside its first tensor: cut, whatever contains it, or refused."""

from collections import OrderedDict, UserDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import dfa
from dfa.hooks.outputs import detach_all
from tests.dfa.refusals import one_step
from tests.dfa.steps import Batch


class Slotted:
    """A state of the user's own."""

    __slots__ = ("memory",)

    def __init__(self, memory: Tensor) -> None:
        self.memory = memory


class Memory:
    """A memory that is read by a call."""

    def __init__(self, memory: Tensor) -> None:
        self.memory = memory

    def __call__(self) -> Tensor:
        return self.memory

    read = __call__


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
    "closure": (lambda h: lambda: h, lambda state: state()),
    "default": (lambda h: lambda memory=h: memory, lambda state: state()),
    "partial": (lambda h: partial(torch.mul, h, 1.0), lambda state: state()),
    "object that is called": (Memory, lambda state: state()),
    "method": (lambda h: Memory(h).read, lambda state: state()),
    "view": (lambda h: {"memory": h}.values(), lambda state: next(iter(state))),
    "method of a tensor": (lambda h: h.mul, lambda state: state(1.0)),
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


ITERATORS: list[Callable[[Tensor], Any]] = [
    lambda h: (part for part in [h]),
    lambda h: iter([h]),
    lambda h: map(torch.clone, [h]),
    lambda h: {"memory": zip([h], strict=True)},
]


@pytest.mark.parametrize("wrap", ITERATORS)
def test_an_iterator_beside_the_first_tensor_is_refused(wrap: Callable[[Tensor], Any], batch: Batch) -> None:
    """What it will yield cannot be seen without taking it."""
    model = nn.Sequential(nn.Linear(5, 5), Reading(wrap, lambda state: torch.zeros(()))).double()
    dfa.Shallow(model, "1.body")
    with pytest.raises(
        dfa.PointError, match=r"its module returns a \w+, and tensors with a gradient that it may yield"
    ):
        model(batch[0])


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


@dataclass
class Child:
    """Knows where it belongs, beside its fields."""

    memory: Tensor

    def __post_init__(self) -> None:
        self.parent = {"children": [self]}


def test_a_container_that_holds_itself_is_refused(batch: Batch) -> None:
    model = Reading(Child, lambda state: state.memory).double()
    dfa.RULES.build("shallow", model, "body")
    with pytest.raises(dfa.PointError, match=r"'body': its module returns a container that holds itself"):
        model(batch[0])
