"""Backpropagation in the topmost layers alone."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import dfa
from tests.dfa.reference import assert_same, backpropagated
from tests.dfa.residual import LAST, POINTS, residual_network
from tests.dfa.steps import Batch, step


@pytest.mark.parametrize(
    ("options", "learning"),
    [
        ({}, [3]),
        ({"fraction": 0.0}, []),
        ({"fraction": 0.5}, [2, 3]),
        ({"fraction": 0.51}, [1, 2, 3]),
        ({"fraction": 1.0}, [0, 1, 2, 3]),
        ({"layers": 0}, []),
        ({"layers": 2}, [2, 3]),
        ({"layers": 9}, [0, 1, 2, 3]),
    ],
)
def test_top_layers_learn_by_backpropagation(options: dict[str, float], learning: list[int], batch: Batch) -> None:
    model = residual_network("pre")
    exact = backpropagated(model, lambda: cross_entropy(model(batch[0]), batch[1]))
    rule = dfa.RULES.build("window", model, POINTS, LAST, **options)
    expected = {name: value for name, value in exact.items() if int(name.split(".")[0]) in [*learning, 4]}
    assert_same(step(rule, model, batch), expected, tolerance=0)
    assert rule.uses.sequential == bool(learning)


@pytest.mark.parametrize(("fraction", "points", "count"), [(0.28, 25, 7), (0.14, 50, 7), (0.55, 100, 55), (0.25, 9, 3)])
def test_share_of_points(fraction: float, points: int, count: int) -> None:
    """In decimals, as it was written: 0.28 × 25 is 7, and not a little more."""
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(points + 1)))
    with dfa.Window(model, [str(index) for index in range(points)], fraction=fraction) as rule:
        step(rule, model, (torch.randn(3, 2), torch.zeros(3, dtype=torch.long)))
    assert sum(layer.weight.grad is not None for layer in model) == count + 1


def test_no_layer_is_shallow(mlp: nn.Sequential, batch: Batch) -> None:
    shallow = dfa.Shallow(mlp, ["1", "3"])
    expected = step(shallow, mlp, batch)
    shallow.close()
    rule = dfa.Window(mlp, ["1", "3"], layers=0)
    assert_same(step(rule, mlp, batch), expected, tolerance=0)
    assert rule.uses == shallow.uses


class Nested(nn.Module):
    """A block with a point inside, which runs before the block's own."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(5, 5), nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(self.inner(x).tanh())


def test_points_inside_a_block_come_before_its_own(batch: Batch) -> None:
    model = nn.Sequential(Nested(), Nested(), nn.Linear(5, 3)).double()
    rule = dfa.Window(model, ["*.inner", "[01]"], layers=1)
    assert set(step(rule, model, batch)) == {
        f"{name}.{kind}" for name in ("1.outer", "2") for kind in ("weight", "bias")
    }


def test_every_error_tensor_has_a_window() -> None:
    """As of a coarse and a fine network."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.coarse, self.fine = (nn.Sequential(*(nn.Linear(4, 4) for _ in range(3))) for _ in range(2))

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([self.coarse(x), self.fine(x)])

    model = Two().double()
    rule = dfa.Window(model, ["*.[01]"], ["coarse", "fine"], fraction=0.5)
    rule.backward(model(torch.randn(2, 4, dtype=torch.double)).square().mean())
    learned = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert learned == {
        f"{part}.{i}.{kind}" for part in ("coarse", "fine") for i in (1, 2) for kind in ("weight", "bias")
    }


def test_points_that_name_their_error_tensors(batch: Batch) -> None:
    model = residual_network("pre")
    rule = dfa.Window(model, dict.fromkeys(POINTS, LAST), layers=2)
    assert {name.split(".")[0] for name in step(rule, model, batch)} == {"2", "3", "4"}


def test_another_order_of_running_is_refused(batch: Batch) -> None:
    class Backwards(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            for module in reversed(list(self)):
                x = module(x)
            return x

    model = nn.Sequential(Backwards(nn.Linear(5, 5), nn.Linear(5, 5)), nn.Linear(5, 3)).double()
    rule = dfa.Window(model, ["0.*"], layers=1)
    with pytest.raises(dfa.PointError, match=r"'0\.0', to be frozen, ran after 0\.1"):
        step(rule, model, batch)


class Dropping(nn.Sequential):
    """Leaves out blocks, as layer drop does."""

    dropped: tuple[str, ...] = ()

    def forward(self, x: Tensor) -> Tensor:
        for name, module in self.named_children():
            x = x if name in self.dropped else module(x)
        return x


def test_a_block_that_is_left_out_of_a_pass_is_no_obstacle(batch: Batch) -> None:
    model = Dropping(nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 3)).double()
    with dfa.Window(model, ["0", "1"], layers=1) as rule:
        for model.dropped in [(), ("0",), ("1",), ()]:
            learned = {name[0] for name in step(rule, model, batch)}
            assert learned == {"1", "2"} - set(model.dropped)


@pytest.mark.parametrize("points", [["1", "3"], ["0", "1", "3"]])
def test_a_window_that_never_runs_is_refused(points: list[str], batch: Batch) -> None:
    """It would be the frozen control."""
    model = Dropping(*(nn.Linear(5, 5) for _ in range(2)), nn.Linear(5, 3), nn.Linear(5, 5)).double()
    model.dropped = ("3",)
    with dfa.Window(model, points, layers=1) as rule, pytest.raises(dfa.PointError, match=r"never reached .*: 3"):
        step(rule, model, batch)


def test_parts_that_are_called_by_themselves_have_an_order_too(batch: Batch) -> None:
    model = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 3)).double()
    with dfa.Window(model, ["0", "1"], layers=1) as rule:
        for _ in range(2):
            rule.backward(cross_entropy(model[2](model[1](model[0](batch[0]))), batch[1]))
        with pytest.raises(dfa.PointError, match="'0', to be frozen, ran after 1"):
            model[2](model[0](model[1](batch[0])))


class Applied(nn.ModuleList):
    """Runs its modules in the order of `path`, on every part of a batch."""

    def __init__(self, path: list[int], modules: list[nn.Module], parts: int = 1) -> None:
        super().__init__(modules)
        self.path, self.parts = path, parts

    def forward(self, x: Tensor) -> Tensor:
        outputs = []
        for part in x.chunk(self.parts):
            for index in self.path:
                part = self[index](part)
            outputs.append(part)
        return torch.cat(outputs)


@pytest.mark.parametrize(("path", "points"), [([0, 0, 0, 0, 1], ["0"]), ([0, 1, 0, 2], ["0", "1"])])
def test_a_point_that_runs_again_above_what_learns_is_refused(path: list[int], points: list[str], batch: Batch) -> None:
    """Four runs of one block would all learn; a frozen one would take the error from the one that learns."""
    model = Applied(path, [*(nn.Linear(5, 5) for _ in points), nn.Linear(5, 3)]).double()
    rule = dfa.Window(model, points, fraction=0.25)
    for _ in range(2):
        with pytest.raises(dfa.PointError, match="'0' runs again above what learns"):
            step(rule, model, batch)
    with torch.no_grad():
        model(batch[0])
    rule.close()
    with dfa.Window(model, points, layers=0) as rule:
        assert set(step(rule, model, batch)) == {f"{path[-1]}.{kind}" for kind in ("weight", "bias")}


def test_points_may_run_on_one_part_of_a_batch_after_the_other(batch: Batch) -> None:
    model = Applied([0, 1, 2], [nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 3)], parts=3).double()
    exact = backpropagated(model, lambda: cross_entropy(model(batch[0]), batch[1]))
    rule = dfa.Window(model, ["0", "1"], layers=1)
    found = step(rule, model, batch)
    assert_same(found, {name: value for name, value in exact.items() if name[0] != "0"}, tolerance=0)


@pytest.mark.parametrize("options", [{"fraction": 1.5}, {"fraction": -0.1}, {"layers": -1}])
def test_bad_options(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        dfa.RULES.build("window", residual_network(), POINTS, LAST, **options)
