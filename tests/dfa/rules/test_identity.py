"""The error itself as signal, and what normalisations on the residual path make of it."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import dfa
from dfa.base.direct import Memory
from dfa.hooks.points import Point
from tests.dfa.reference import as_array, assert_close, assert_same, backpropagated, gradients, softmax_error
from tests.dfa.steps import Batch


class Residual(nn.Module):
    """x + f(x), f ending in zero weights if `silent`; normalised after the sum if `norm`."""

    def __init__(self, width: int, silent: bool = False, norm: bool = False) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, width, bias=False))
        self.norm = nn.LayerNorm(width) if norm else nn.Identity()
        if silent:
            nn.init.zeros_(self.branch.get_parameter("2.weight"))

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x + self.branch(x))


def network(*blocks: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(5, 4), *blocks, nn.Linear(4, 3)).double()


def test_is_backpropagation_where_the_branch_is_zero(batch: Batch) -> None:
    model = network(Residual(4, silent=True))
    expected = backpropagated(model, lambda: cross_entropy(model(batch[0]), batch[1]))
    rule = dfa.IdentityFeedback(model, points="0", error_at="1")
    rule.backward(cross_entropy(model(batch[0]), batch[1]))
    assert_same(gradients(model), expected, tolerance=1e-12)
    assert rule.uses == dfa.Uses()


def test_is_not_backpropagation_where_it_is_not(batch: Batch) -> None:
    model = network(Residual(4))
    expected = backpropagated(model, lambda: cross_entropy(model(batch[0]), batch[1]))
    dfa.IdentityFeedback(model, points="0", error_at="1").backward(cross_entropy(model(batch[0]), batch[1]))
    assert not torch.allclose(gradients(model)["0.weight"], expected["0.weight"], rtol=1e-2)


def test_norms_between_two_points_count_from_the_top() -> None:
    """Their Jacobians do not commute: backpropagation through two normalisations in a row, which is exact here."""
    first, second, head = nn.LayerNorm(4).double(), nn.LayerNorm(4).double(), nn.Linear(4, 3).double()
    for norm in (first, second):
        nn.init.uniform_(norm.weight, 0.5, 2.0)
    model = nn.Sequential(nn.Linear(5, 4).double(), first, second, head)
    x = torch.randn(6, 5, dtype=torch.double)
    expected = backpropagated(model, lambda: model(x).square().mean())
    rule = dfa.IdentityFeedback(model, points="0", error_at="2", norms=["1", "2"])
    rule.backward(model(x).square().mean())
    assert_same({"0.weight": gradients(model)["0.weight"]}, {"0.weight": expected["0.weight"]}, tolerance=1e-12)


@pytest.mark.parametrize("memory", ["keep", "recompute"])
def test_damping_and_norms_in_numpy(memory: Memory, batch: Batch) -> None:
    """Two post-norm blocks: signals e, δ N₂ᵀ e and δ² N₁ᵀ N₂ᵀ e, seen through the gradients of the biases."""
    x, targets = batch
    blocks = Residual(4, norm=True), Residual(4, norm=True)
    model = network(*blocks)
    for block in blocks:
        nn.init.uniform_(block.get_parameter("norm.weight"), 0.5, 2.0)
    points = ["0", "1", "2"]
    rule = dfa.IdentityFeedback(model, points, error_at="2", damping=0.8, norms="*.norm", memory=memory)
    rule.backward(cross_entropy(model(x), targets))
    data = as_array(x) @ as_array(model.get_parameter("0.weight")).T + as_array(model.get_parameter("0.bias"))
    steps = []
    for block in blocks:
        w1, b1, w2, gain, shift = (as_array(parameter) for parameter in block.parameters())
        total = data + np.tanh(data @ w1.T + b1) @ w2.T
        std = np.sqrt(total.var(axis=1, keepdims=True) + 1e-5)
        normal = (total - total.mean(axis=1, keepdims=True)) / std
        # N of each row, (rows, 4, 4): diag(α) (I - 1 1ᵀ/d - û ûᵀ/d) / σ
        centred = np.eye(4) - 1 / 4 - normal[:, :, None] * normal[:, None, :] / 4
        steps.append(gain[None, :, None] * centred / std[:, :, None])
        data = normal * gain + shift
    above = as_array(model.get_parameter("3.weight"))
    logits = data @ above.T + as_array(model.get_parameter("3.bias"))
    error = softmax_error(logits, targets.numpy()) @ above
    found = gradients(model)
    assert_close(found["2.norm.bias"], error.sum(axis=0))
    lower = 0.8 * np.einsum("nij,ni->nj", steps[1], error)
    assert_close(found["1.norm.bias"], lower.sum(axis=0))
    assert_close(found["0.bias"], 0.8 * np.einsum("nij,ni->j", steps[0], lower))
    assert rule.uses.forward_weights == "gains"


def test_other_shapes_get_what_was_chosen() -> None:
    wide, narrow, error = torch.randn(7, 6), torch.randn(7, 4), torch.randn(7, 4)
    points = [Point("wide", wide), Point("narrow", narrow)]
    random = dfa.DirectFeedbackAlignment(nn.Linear(4, 4), "")
    expected = next(iter(random.signals("", error, points[:1])))
    found = list(dfa.IdentityFeedback(nn.Linear(4, 4), "").signals("", error, points))
    assert torch.equal(found[0], expected) and torch.equal(found[1], error)
    found = list(dfa.IdentityFeedback(nn.Linear(4, 4), "", otherwise="zero").signals("", error, points))
    assert torch.equal(found[0], torch.zeros(7, 6)) and torch.equal(found[1], error)


def test_points_of_another_shape_are_no_steps() -> None:
    error = torch.randn(7, 4)
    points = [Point(name, torch.randn(7, width)) for name, width in (("a", 4), ("b", 9), ("c", 4))]
    found = list(dfa.IdentityFeedback(nn.Linear(4, 4), "", damping=0.5, otherwise="zero").signals("", error, points))
    torch.testing.assert_close(found[0], 0.5 * error)
    torch.testing.assert_close(found[2], error)


class OnePlus(nn.LayerNorm):
    """Its gains are 1 + α."""

    def forward(self, u: Tensor) -> Tensor:
        return nn.functional.layer_norm(u, self.normalized_shape, 1 + self.weight, self.bias, self.eps)


def test_norms_must_be_layer_norms() -> None:
    with pytest.raises(dfa.PointError, match=r"'1' is a OnePlus, not a LayerNorm"):
        dfa.IdentityFeedback(nn.Sequential(nn.Linear(6, 6), OnePlus(6), nn.Linear(6, 6)), ["0"], norms="1")
    with pytest.raises(dfa.PointError, match=r"'0' is a Linear, not a LayerNorm"):
        dfa.IdentityFeedback(network(Residual(4)), points="0", error_at="1", norms="0")
    with pytest.raises(dfa.PointError, match="'2' is a Linear"):
        dfa.IdentityFeedback(network(Residual(4, norm=True)), points="0", error_at="1", norms=["*.norm", "2"])


@pytest.mark.parametrize("norms", [[], ["*.norm"]])
def test_compiled_identity(norms: list[str], batch: Batch) -> None:
    model = network(Residual(4, norm=True), Residual(4, norm=True))
    rule = dfa.IdentityFeedback(model, points=["0", "1"], error_at="2", damping=0.5, norms=norms)
    rule.backward(cross_entropy(model(batch[0]), batch[1]))
    expected = gradients(model)
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for _ in range(2):
        model.zero_grad()
        rule.backward(cross_entropy(compiled(batch[0]), batch[1]))
        assert_same(gradients(model), expected, tolerance=1e-12)


@pytest.mark.parametrize("kept", [True, False])
def test_random_matrices_for_other_shapes_are_told_kept_or_not(kept: bool, mlp: nn.Sequential, batch: Batch) -> None:
    rule = dfa.RULES.build("identity", mlp, ["1", "3"], draw="counter", keep=kept)
    assert rule.uses.state == "none"
    rule.backward(cross_entropy(mlp(batch[0]), batch[1]))
    assert rule.uses.state == "fixed feedback"


class Towers(nn.Module):
    """Two networks of two post-norm blocks, run in turn or one after the other."""

    def __init__(self, in_turn: bool) -> None:
        super().__init__()
        self.one, self.two = (nn.Sequential(Residual(4, norm=True), Residual(4, norm=True)) for _ in range(2))
        for name, gains in self.named_parameters():
            if name.endswith("norm.weight"):
                nn.init.uniform_(gains, 0.5, 2.0)
        self.first, self.second, self._in_turn = nn.Identity(), nn.Identity(), in_turn

    def forward(self, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        if self._in_turn:
            for one, two in zip(self.one, self.two, strict=True):
                x, z = one(x), two(z)
            return self.first(x), self.second(z)
        return self.first(self.one(x)), self.second(self.two(z))


@pytest.mark.parametrize("rule", ["identity", "highway"])
@pytest.mark.parametrize("in_turn", [False, True])
def test_a_norm_is_that_of_its_own_network_or_refused(in_turn: bool, rule: str) -> None:
    torch.manual_seed(0)
    model, x, z = Towers(in_turn).double(), *torch.randn(2, 6, 4, dtype=torch.double)

    def loss() -> Tensor:
        first, second = model(x, z)
        return first.pow(3).sum() + second.pow(3).sum()

    waves = {"waves": 0} if rule == "highway" else {}
    trained = dfa.RULES.build(rule, model, {"one.0": "first", "two.0": "second"}, norms="*.*.norm", **waves)
    if in_turn:
        with pytest.raises(dfa.PointError, match=r"norms: 'two\.0\.norm' ran while the points of first wait"):
            loss()
        return
    trained.backward(loss())
    found = gradients(model)
    trained.close()
    for name, network, given in (("one", model.one, x), ("two", model.two, z)):
        below, upper = network[0](given), network[1]
        assert isinstance(upper, Residual)
        total = (below + upper.branch(below)).detach().requires_grad_()
        (signal,) = torch.autograd.grad(upper.norm(total).pow(3).sum(), total)
        (expected,) = torch.autograd.grad(below, network.get_parameter("0.branch.0.weight"), signal)
        torch.testing.assert_close(found[f"{name}.0.branch.0.weight"], expected)


class Normed(nn.Module):
    """A residual block whose normalisation is called in one of several ways."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.layer, self.norm, self.how = nn.Linear(5, 5), nn.LayerNorm(5), how

    def forward(self, x: Tensor) -> Tensor:
        total = x + torch.tanh(self.layer(x))
        if self.how == "function":
            return nn.functional.layer_norm(total, (5,), self.norm.weight, self.norm.bias)
        if self.how == "forward":
            return self.norm.forward(total)
        normed: Tensor = self.norm(input=total) if self.how == "by keyword" else self.norm(total)
        return normed


@pytest.mark.parametrize("name", ["identity", "highway"])
@pytest.mark.parametrize("how", ["called", "by keyword", "function", "forward", "replaced"])
def test_norms_that_are_not_met_are_refused(how: str, name: str, batch: Batch) -> None:
    """The signal would be that of a path without them."""

    def train(how: str) -> dict[str, Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(5, 5), Normed(how), Normed(how)).double()
        with dfa.RULES.build(name, model, ["0", "1"], norms=["*.norm"]) as rule:
            if how == "replaced":
                model[1].norm = nn.LayerNorm(5).double()
            rule.backward((model(batch[0]) - 1).square().mean())
        return gradients(model)

    expected = train("called")
    if how in ("called", "by keyword"):
        assert_same(train(how), expected, tolerance=0)
    else:
        with pytest.raises(dfa.PointError, match=r"normalisation\(s\) on the path never reached.*: 1\.norm"):
            train(how)
