"""Models and loops that change a model, write into its output or leave out parts of it: right or refused."""

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

import dfa
from tests.dfa.reference import assert_same, gradients
from tests.dfa.refusals import one_step
from tests.dfa.steps import Batch, step

DIRECT = ["dfa", "drtp", "identity", "highway", "dkp", "low_rank", "fdfa", "grape"]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("memory", ["keep", "recompute"])
@pytest.mark.parametrize("name", DIRECT)
def test_a_loss_may_write_into_the_error_tensor(name: str, memory: str, mlp: nn.Sequential, batch: Batch) -> None:
    """As a mask of choices that are not allowed."""
    if memory == "recompute" and name not in ("dfa", "drtp"):
        pytest.skip("has no such option")
    mask = torch.tensor([True, False, False]).expand(7, 3)

    def masked(in_place: bool) -> dict[str, Tensor]:
        options = {"memory": memory} if memory == "recompute" else {}
        torch.manual_seed(1)
        with dfa.RULES.build(name, mlp, ["1", "3"], "4", **options) as rule:

            def loss() -> Tensor:
                out = mlp(batch[0])
                out = out.masked_fill_(mask, -9.0) if in_place else out.masked_fill(mask, -9.0)
                return cross_entropy(out, batch[1].clamp(min=1))

            return one_step(rule, mlp, loss)

    assert_same(masked(in_place=True), masked(in_place=False), tolerance=0)


class WithGains(nn.Module):
    """Has a parameter of its own, as a class token is."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.gains = nn.Linear(5, 4), nn.Linear(4, 3), nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.b(self.a(x)) * self.gains
        return out


@pytest.mark.parametrize("name", ["dfa", "shallow", "fdfa"])
def test_the_first_error_of_a_model_is_its_own(name: str) -> None:
    model = WithGains()
    with dfa.RULES.build(name, model, ["a"]), pytest.raises(RuntimeError, match="mat1 and mat2 shapes"):
        model(torch.randn(6, 7))


class ByRows(nn.Module):
    """Works on the rows of (batch, time, width) one by one, in checkpoints, and takes their mean over time."""

    def __init__(self, blocks_only: bool, checkpoints: bool) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(5, 4), nn.Linear(4, 3)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4)) for _ in range(2))
        self.blocks_only, self.checkpoints = blocks_only, checkpoints

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.embed(x.flatten(0, 1))
        for block in self.blocks:
            run = self.checkpoints and self.blocks_only
            hidden = checkpoint(block, hidden, use_reentrant=False) if run else block(hidden)
        mean = hidden.view(*x.shape[:2], 4).mean(1)
        out: Tensor = self.head(mean)
        return out


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", ["dfa", "dkp", "highway"])
def test_points_on_flattened_rows_inside_checkpoints(name: str) -> None:
    """The search for a point's own rows goes backward once, in the middle of a forward pass."""
    x, y = torch.randn(6, 3, 5), torch.arange(6) % 3

    def train(checkpoints: bool) -> list[dict[str, Tensor]]:
        torch.manual_seed(0)
        model = ByRows(blocks_only=True, checkpoints=checkpoints)
        with dfa.RULES.build(name, model, ["blocks.*.1"]) as rule:
            return [one_step(rule, model, lambda: cross_entropy(model(x), y)) for _ in range(3)]

    for found, expected in zip(train(True), train(False), strict=True):
        assert_same(found, expected, tolerance=1e-6)


CUTTING = ["dfa", "shallow", "window", "identity", "highway", "dkp", "fdfa"]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", CUTTING)
def test_a_block_that_was_added_to_a_model_is_refused(name: str, batch: Batch) -> None:
    """It would learn by backpropagation, for the rule has no hook there."""

    class Chain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks, self.head = nn.ModuleList(nn.Linear(5, 5) for _ in range(2)), nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            for block in self.blocks:
                x = torch.tanh(block(x))
            out: Tensor = self.head(x)
            return out

    model = Chain().double()
    with dfa.RULES.build(name, model, ["blocks.*"]) as rule:
        model.extra = nn.Linear(2, 2).double()  # which no pattern names
        step(rule, model, batch)
        model.blocks.append(nn.Linear(5, 5).double())
        with pytest.raises(dfa.PointError, match=r"added after the rule was made.*: blocks\.2; close\(\)"):
            step(rule, model, batch)


class Towers(nn.Module):
    """Two networks side by side, each with an error of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.one, self.two = nn.Linear(5, 4), nn.Linear(5, 4), nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a, b = self.a(x), self.b(x)
        return self.one(a), self.two(b)


@pytest.mark.parametrize("rule", ["fdfa", "grape"])
def test_two_networks_side_by_side_learn_their_own_jacobians(rule: str) -> None:
    """∂one/∂a is the transposed weight of `one`, whatever was drawn for b in the same pass."""
    model = Towers().double()
    options = {"beta": 0.02, "scale": 0.0} if rule == "fdfa" else {"lr": 0.02}
    learner = dfa.RULES.build(rule, model, {"a": "one", "b": "two"}, **options)
    for _ in range(1200):
        one, two = model(torch.randn(32, 5, dtype=torch.double))
    learner.backward(one.square().sum() + two.square().sum())
    for point, head in (("a", "one"), ("b", "two")):
        learned = learner.state_dict()["feedback"][f"{head}:{point}"]
        weight = model.get_parameter(f"{head}.weight")
        assert torch.cosine_similarity(learned, weight, dim=0).min() > 0.95


def rounded_detached(x: Tensor) -> Tensor:
    return x + (x.round() - x).detach()


def rounded_without_grad(x: Tensor) -> Tensor:
    with torch.no_grad():
        change = x.round() - x
    return x + change


def scaled_without_grad(x: Tensor) -> Tensor:
    with torch.no_grad():
        size = x.norm(dim=1, keepdim=True)
    return x / size


class Through(nn.Module):
    """A network that is computed through some function of its hidden layer."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.head, self.function = nn.Linear(5, 4), nn.Linear(4, 3), function

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.function(self.a(x)))
        return out


@pytest.mark.parametrize("function", [rounded_detached, rounded_without_grad, scaled_without_grad])
def test_forward_mode_leaves_out_what_has_no_gradient(function: Callable[[Tensor], Tensor], batch: Batch) -> None:
    """s = J p with autograd's own J, for which a block under no_grad is constant."""
    model = Through(function).double()
    seen: list[tuple[Tensor, Tensor]] = []

    class Watching(dfa.ForwardDirectFeedback):
        def observe(self, error_name, response, points, perturbations):  # type: ignore[no-untyped-def]
            seen.append((response, perturbations[0]))

    with Watching(model, ["a"]):
        model(batch[0])
    (response, perturbation), hidden = seen[0], model.a(batch[0]).detach().requires_grad_()
    out = model.head(function(hidden))
    for row in range(3):
        (jacobian,) = torch.autograd.grad(out[:, row].sum(), hidden, retain_graph=True)
        torch.testing.assert_close(response[:, row], (jacobian * perturbation).sum(1))


def test_what_pytorch_computes_from_parameters_may_stay(mlp: nn.Sequential, batch: Batch) -> None:
    """An auxiliary loss may not, see `test_refusals_recompute`; a detached value may."""

    class Watched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.utils.weight_norm(nn.Linear(5, 5))
            self.table: Tensor | None = None

        def forward(self, x: Tensor) -> Tensor:
            out = torch.tanh(self.layer(x))
            self.size = out.detach().norm()
            self.table = torch.arange(5).cos() if self.table is None else self.table
            return out * self.table

    model = nn.Sequential(Watched(), Watched(), nn.Linear(5, 3)).double()
    found = {}
    for memory in ("keep", "recompute"):
        with dfa.RULES.build("dfa", model, ["0", "1"], memory=memory) as rule:
            found[memory] = step(rule, model, batch)
            assert_same(step(rule, model, batch), found[memory], tolerance=0)
    assert_same(found["recompute"], found["keep"], tolerance=1e-12)
    assert gradients(model)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ["shallow", "window"])
def test_a_generator_that_gets_no_gradient_is_told_once(name: str, training: bool) -> None:
    """As dfa tells it: the discriminator is to be called in a pause where the generator learns."""
    generator, discriminator = nn.Linear(2, 5), nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 1))
    discriminator.train(training)
    rule = dfa.RULES.build(name, discriminator, ["1"], **({} if name == "shallow" else {"layers": 0}))
    with pytest.warns(UserWarning, match="an input of the model requires a gradient, and none comes back") as told:
        for _ in range(2):
            discriminator(generator(torch.randn(3, 2))).mean().backward()
    assert len(told) == 1 and generator.weight.grad is None
    rule.close()
    rule = dfa.RULES.build(name, discriminator, ["1"], **({} if name == "shallow" else {"layers": 0}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rule.backward(discriminator(generator(torch.randn(3, 2)).detach()).mean())
        with rule.paused():
            discriminator(generator(torch.randn(3, 2))).mean().backward()
    assert generator.weight.grad is not None


class Conditioned(nn.Module):
    """Uses its second input above the point alone."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Sequential(nn.Linear(5, 4), nn.Tanh()), nn.Linear(4, 1)

    def forward(self, x: Tensor, above: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(x) + above)
        return out


def test_an_input_that_no_point_depends_on_is_not_told() -> None:
    model, above = Conditioned(), torch.randn(3, 4, requires_grad=True)
    rule = dfa.Shallow(model, "body")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rule.backward(model(torch.randn(3, 5), above).mean())
    assert above.grad is not None and above.grad.any()
