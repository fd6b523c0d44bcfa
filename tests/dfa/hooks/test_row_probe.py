"""Several rows of a point for a row of the error: exact where they are neighbours, refused where they are not."""

import gc
import weakref
from collections.abc import Callable
from math import sqrt

import pytest
import torch
from torch import Tensor, nn

import dfa
from tests.dfa.reference import assert_same, gradients, only_matrix

RULES = ["dfa", "identity", "drtp", "dkp", "low_rank", "highway", "fdfa", "grape"]


class Model(nn.Module):
    """A trunk, which is the feedback point, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.head = nn.Sequential(nn.Linear(5, 8), nn.Tanh()), nn.Linear(8, 3)


class Siamese(Model):
    """Two views of every sample in one batch, one after the other."""

    def forward(self, x: Tensor) -> Tensor:
        one, other = self.trunk(torch.cat([x[:, 0], x[:, 1]])).chunk(2)
        return self.head((one - other).abs())


class TimeMajor(Model):
    """(time, batch) as one dimension inside, (batch, time, …) outside."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.trunk(x.transpose(0, 1).flatten(0, 1)).unflatten(0, x.shape[1::-1]).transpose(0, 1))


class Pooling(Model):
    """Nodes of graphs of unequal size."""

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.trunk(x.flatten(0, 1))
        graphs = torch.arange(len(hidden)).add(1).clamp(max=len(x) - 1)
        return self.head(torch.zeros(len(x), 8, dtype=x.dtype).index_add(0, graphs, hidden))


class Attending(TimeMajor):
    """Time-major, with attention among the tokens of each sample above the point."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.trunk(x.transpose(0, 1).flatten(0, 1)).unflatten(0, x.shape[1::-1])
        return self.head(self.attention(hidden, hidden, hidden)[0].transpose(0, 1))


class Rays(Model):
    """Samples along rays, some of which are hidden behind others."""

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.trunk(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        return self.head((hidden * torch.tensor([1.0, 0.0, 2.0], dtype=x.dtype)[:, None]).sum(1))


class Tokens(Model):
    """(batch, time) as one dimension inside."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.trunk(x.flatten(0, 1)).unflatten(0, x.shape[:2]))


class Blocks(Rays):
    """Rays, with a second point above the first."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Sequential(nn.Linear(5, 8), nn.Tanh()), nn.Sequential(nn.Linear(8, 8), nn.ReLU()))


MIXED = [Siamese, TimeMajor, Pooling, Attending]


def inputs(model: nn.Module) -> Tensor:
    return torch.randn(6, 2 if isinstance(model, Siamese) else 3, 5, dtype=torch.double)


def loss_of(output: Tensor) -> Tensor:
    rows = output.reshape(-1, 3)
    return nn.functional.cross_entropy(rows, torch.arange(len(rows)) % 3)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("kind", MIXED)
def test_rows_in_another_order_are_refused(kind: Callable[[], nn.Module], name: str) -> None:
    torch.manual_seed(0)
    model = kind().double()
    rule = dfa.RULES.build(name, model, "trunk")
    rule.backward(loss_of(model(inputs(model))))
    with pytest.raises(
        dfa.FeedbackError, match=r"point 'trunk' has the shape .* its rows are not in the error's order"
    ):
        model(inputs(model))


class Parts(Model):
    """A Siamese network whose parts are called by themselves."""

    def encode(self, x: Tensor) -> Tensor:
        return self.trunk(torch.cat([x[:, 0], x[:, 1]]))

    def decode(self, hidden: Tensor) -> Tensor:
        one, other = hidden.chunk(2)
        return self.head((one - other).abs())


@pytest.mark.parametrize("name", ["dfa", "identity", "dkp", "highway"])
def test_parts_called_by_themselves_are_tried_too(name: str) -> None:
    torch.manual_seed(0)
    model = Parts().double()
    rule = dfa.RULES.build(name, model, "trunk", error_at="head")
    x = torch.randn(6, 2, 5, dtype=torch.double)
    rule.backward(loss_of(model.decode(model.encode(x))))
    with pytest.raises(dfa.FeedbackError, match="its rows are not in the error's order"):
        model.decode(model.encode(x))


def test_a_trial_keeps_no_pass_alive() -> None:
    """Passes of parts whose error never comes go with their graph, while a trial is due."""
    model = Parts().double()
    activations: list[weakref.ref[Tensor]] = []
    model.trunk.register_forward_hook(lambda *call: activations.append(weakref.ref(call[2])))
    rule = dfa.DirectFeedbackAlignment(model, "trunk", error_at="head")
    x = torch.randn(6, 2, 5, dtype=torch.double)
    rule.backward(loss_of(model.decode(model.encode(x))))
    for _ in range(3):
        model.encode(x)
    gc.collect()
    assert [alive() for alive in activations] == [None] * 4


def test_order_that_the_user_has_named() -> None:
    model = Siamese().double()
    rule = dfa.DirectFeedbackAlignment(model, "trunk", batch_dims=1)
    for _ in range(3):
        rule.backward(loss_of(model(inputs(model))))


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("kind", [Rays, Tokens, Blocks])
def test_neighbours_go_on(kind: Callable[[], nn.Module], name: str) -> None:
    torch.manual_seed(0)
    model = kind().double()
    rule = dfa.RULES.build(name, model, "trunk.*" if isinstance(model, Blocks) else "trunk")
    for _ in range(3):
        rule.backward(loss_of(model(inputs(model))))


@pytest.mark.parametrize("kind", [Rays, Tokens])
def test_the_trial_changes_no_gradient_and_no_random_number(kind: Callable[[], nn.Module]) -> None:
    """In every pass, the trial's among them, the trunk learns from e B, repeated for each of its rows."""
    torch.manual_seed(0)
    model = kind().double()
    rule = dfa.DirectFeedbackAlignment(model, "trunk")
    x = inputs(model)
    for _ in range(3):
        state = torch.get_rng_state()
        model.zero_grad()
        rule.backward(loss_of(model(x)))
        assert torch.equal(torch.get_rng_state(), state)
        found = {name: gradient for name, gradient in gradients(model).items() if name.startswith("trunk.")}
        with rule.paused():
            output, hidden = model(x), model.get_submodule("trunk")(x.flatten(0, 1))
        (error,) = torch.autograd.grad(loss_of(output), output)
        signal = (error.reshape(-1, 3) @ only_matrix(rule)).repeat_interleave(hidden.shape[0] * 3 // error.numel(), 0)
        parameters = dict(model.get_submodule("trunk").named_parameters())
        expected = torch.autograd.grad(
            hidden, list(parameters.values()), signal / sqrt(hidden.shape[0] * 3 / error.numel())
        )
        assert_same(found, dict(zip((f"trunk.{name}" for name in parameters), expected, strict=True)))
