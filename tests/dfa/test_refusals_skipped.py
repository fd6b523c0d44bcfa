"""Blocks that a pass leaves out, and layers that are frozen halfway: nothing learns there, and all else as ever."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dfa
from tests.dfa.reference import assert_same
from tests.dfa.steps import Batch, step


class Skipping(nn.Module):
    """A residual block that stochastic depth may skip."""

    skip = False

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return x if self.skip else x + torch.tanh(self.layer(x))


@pytest.mark.parametrize("name", ["dfa", "identity", "dkp", "fdfa"])
def test_a_block_that_is_skipped_now_and_then(name: str, batch: Batch) -> None:
    blocks = [Skipping() for _ in range(3)]
    model = nn.Sequential(nn.Linear(5, 4), *blocks, nn.Linear(4, 3)).double()
    with dfa.RULES.build(name, model, ["1", "2", "3"]) as rule:
        for blocks[1].skip in (False, True, False):
            learned = {name[0] for name in step(rule, model, batch)}
            assert learned == set("01234") - ({"2"} if blocks[1].skip else set())
    blocks[1].requires_grad_(False)
    model[0].requires_grad_(False)
    blocks[0].requires_grad_(False)
    with dfa.RULES.build(name, model, ["1", "3"]) as rule, pytest.raises(dfa.PointError, match="'1' has nothing below"):
        step(rule, model, batch)


class Gated(nn.Module):
    """A network with a residual block whose point, an activation function, has no parameters of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.block, self.act, self.head = nn.Linear(5, 4), Skipping(), nn.Tanh(), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.act(self.block(self.embed(x))))


DROPPED: list[tuple[str, dict[str, Any]]] = [
    ("dfa", {}),
    ("identity", {}),
    ("drtp", {}),
    ("dkp", {}),
    ("low_rank", {"rank": 2}),
    ("fdfa", {}),
    ("grape", {}),
    ("highway", {}),
    ("calibrate", {"every": 2}),
    ("dfa", {"memory": "recompute"}),
]


@pytest.mark.filterwarnings("ignore:.*no point has the shape of the error:UserWarning")
@pytest.mark.parametrize(("name", "options"), DROPPED, ids=[f"{name} {options}" for name, options in DROPPED])
def test_a_block_that_the_first_passes_skip(name: str, options: dict[str, Any], batch: Batch) -> None:
    """Nothing is sent to it then; all others learn as they would without its point."""
    blocks = Skipping(), Skipping()
    model = nn.Sequential(nn.Linear(5, 4), *blocks, nn.Linear(4, 3)).double()
    blocks[1].skip = True
    with dfa.RULES.build(name, model, ["0", "1", "2"], **options) as rule:
        steps = [step(rule, model, batch) for _ in range(2)]
    assert {key[0] for key in steps[1]} == set("013")
    if name != "calibrate":
        with dfa.RULES.build(name, model, ["0", "1"], **options) as rule:
            expected = step(rule, model, batch)
        if name not in ("fdfa", "grape", "highway", "identity"):  # which depend on the number of points
            assert_same(steps[0], expected, tolerance=1e-9)


def test_a_skipped_block_below_a_point_without_parameters(batch: Batch) -> None:
    model = Gated().double()
    model.block.skip = True
    with dfa.DirectFeedbackAlignment(model, ["embed", "act"]) as rule:
        assert {key.split(".")[0] for key in step(rule, model, batch)} == {"embed", "head"}
    model.block.requires_grad_(False)
    with (
        dfa.DirectFeedbackAlignment(model, ["embed", "act"]) as rule,
        pytest.raises(dfa.PointError, match="'act' has nothing below"),
    ):
        step(rule, model, batch)


FREEZING = ["dfa", "identity", "highway", "drtp", "dkp", "low_rank", "fdfa", "grape", "shallow", "window"]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("frozen", [["0"], ["0", "2"]])
@pytest.mark.parametrize("name", FREEZING)
def test_layers_that_are_frozen_halfway(name: str, frozen: list[str], mlp: nn.Sequential, batch: Batch) -> None:
    """The others have the gradients that they would have with all."""
    options: dict[str, Any] = {"fdfa": {"beta": 0.0}, "grape": {"lr": 0.0}, "dkp": {"lr": 0.0}, "low_rank": {"lr": 0.0}}
    with dfa.RULES.build(name, mlp, ["1", "3"], **options.get(name, {})) as rule:
        expected = step(rule, mlp, batch)
        for layer in frozen:
            mlp.get_submodule(layer).requires_grad_(False)
        found = step(rule, mlp, batch)
    assert_same(found, {key: value for key, value in expected.items() if key[0] not in frozen}, tolerance=1e-5)
