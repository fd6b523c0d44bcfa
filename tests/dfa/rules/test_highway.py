"""Waves along the residual path, against whole Jacobian matrices and against backpropagation."""

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import dfa
from dfa.rules.identity import Otherwise
from tests.dfa.reference import as_array, assert_same, backpropagated, gradients, only_matrix, softmax_error
from tests.dfa.residual import BLOCKS, LAST, POINTS, residual_network, wave_gradients
from tests.dfa.steps import Batch, step

NORMS = ("none", "pre", "post")


@pytest.mark.parametrize("waves", range(BLOCKS + 2))
@pytest.mark.parametrize("norm", NORMS)
def test_waves_from_whole_jacobians(norm: str, waves: int, batch: Batch) -> None:
    model = residual_network(norm)
    norms = ["*.after"] if norm == "post" else []
    expected = wave_gradients(model, batch, waves, 0.7, norms=norm == "post")
    rule = dfa.Highway(model, POINTS, LAST, waves=waves, damping=0.7, norms=norms)
    assert_same(step(rule, model, batch), expected, tolerance=1e-11)


@pytest.mark.parametrize("norm", NORMS)
def test_as_many_waves_as_points_are_backpropagation(norm: str, batch: Batch) -> None:
    model = residual_network(norm)
    expected = backpropagated(model, lambda: cross_entropy(model(batch[0]), batch[1]))
    rule = dfa.Highway(model, POINTS, LAST, waves=len(POINTS))
    assert_same(step(rule, model, batch), expected, tolerance=1e-12)
    rule.close()
    fewer = dfa.Highway(model, POINTS, LAST, waves=BLOCKS - 1)
    assert not torch.allclose(step(fewer, model, batch)["0.weight"], expected["0.weight"], rtol=1e-3)


def encoder(norm_first: bool) -> tuple[nn.Module, Tensor]:
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.2, norm_first=norm_first, batch_first=True)
    model = nn.Sequential(nn.Linear(5, 8), nn.TransformerEncoder(layer, 3, enable_nested_tensor=False), nn.Linear(8, 3))
    return model.double(), torch.randn(4, 6, 5, dtype=torch.double)


@pytest.mark.parametrize("within", [False, True], ids=["blocks", "within"])
@pytest.mark.parametrize("norm_first", [True, False])
def test_attention_and_points_within_blocks(norm_first: bool, within: bool) -> None:
    """Points inside a branch lie off the path; with dropout, all waves see the masks of the forward pass."""
    model, x = encoder(norm_first)
    points = ["0", "1.layers.*", *(["1.layers.*.self_attn", "1.layers.*.linear1"] if within else [])]

    def loss() -> Tensor:
        torch.manual_seed(3)
        return model(x).square().mean()

    expected = backpropagated(model, loss)
    rule = dfa.Highway(model, points, "1", waves=10, norms=[] if norm_first else ["1.layers.*.norm*"])
    rule.backward(loss())
    assert_same(gradients(model), expected, tolerance=1e-12)


@pytest.mark.parametrize("otherwise", ["dfa", "zero"])
def test_no_wave_is_identity(otherwise: Otherwise, batch: Batch) -> None:
    narrow = nn.Sequential(nn.Tanh(), nn.Linear(8, 4))
    model = nn.Sequential(nn.Linear(5, 8), narrow, *list(residual_network("post"))[1:]).double()
    options = {"damping": 0.7, "norms": ["*.after"], "otherwise": otherwise}
    identity = dfa.RULES.build("identity", model, ["0", "[1-4]"], "4", **options)
    expected = step(identity, model, batch)
    identity.close()
    rule = dfa.RULES.build("highway", model, ["0", "[1-4]"], "4", waves=0, feedback="learned_zero", **options)
    assert_same(step(rule, model, batch), expected, tolerance=0)
    assert rule.uses == identity.uses and rule.state_dict()["between"] == {}


def test_where_no_path_leads(mlp: nn.Sequential, batch: Batch) -> None:
    """Signals start as those of `dfa`, and become exact from the top, a point with each wave."""
    x, targets = batch
    expected = backpropagated(mlp, lambda: cross_entropy(mlp(x), targets))
    direct = dfa.DirectFeedbackAlignment(mlp, ["1", "3"])
    step(direct, mlp, batch)  # draws its matrix
    direct.close()
    first = mlp[1](mlp[0](x))
    cut = first.detach().requires_grad_()
    second = mlp[3](mlp[2](cut))
    error = torch.from_numpy(softmax_error(as_array(mlp[4](second)), targets.numpy()))
    (signal,) = torch.autograd.grad(second, cut, error @ only_matrix(direct)[:, :6])
    (driven,) = torch.autograd.grad(first, mlp.get_parameter("0.weight"), signal)
    rule = dfa.Highway(mlp, ["1", "3"], waves=1)
    with pytest.warns(UserWarning, match="rule 'highway': no point has the shape of the error"):
        found = step(rule, mlp, batch)
    torch.testing.assert_close(found["0.weight"], driven)
    assert not torch.allclose(driven, expected["0.weight"], rtol=1e-2)
    assert_same({"2.weight": found["2.weight"]}, {"2.weight": expected["2.weight"]}, tolerance=1e-12)
    rule.close()
    rule = dfa.Highway(mlp, ["1", "3"], waves=2)
    with pytest.warns(UserWarning, match="no point has the shape"):
        assert_same(step(rule, mlp, batch), expected, tolerance=1e-12)


def test_several_passes_before_one_backward(batch: Batch) -> None:
    model = residual_network("pre")
    expected = backpropagated(model, lambda: sum_of_two(model, batch))
    rule = dfa.Highway(model, POINTS, LAST, waves=4)
    rule.backward(sum_of_two(model, batch))
    assert_same(gradients(model), expected, tolerance=1e-12)
    assert not rule.hooks.records


def sum_of_two(model: nn.Module, batch: Batch) -> Tensor:
    return cross_entropy(model(batch[0]), batch[1]) + model(2 * batch[0]).square().mean()


def test_error_above_the_topmost_point(batch: Batch) -> None:
    """As where the last block gets the error itself: its part of the graph is gone through, too."""
    model = residual_network("post")
    expected = backpropagated(model, lambda: cross_entropy(model(batch[0]), batch[1]))
    rule = dfa.Highway(model, POINTS[:-1], LAST, waves=BLOCKS, norms=["*.after"])
    assert_same(step(rule, model, batch), expected, tolerance=1e-12)


def test_operations_in_place(batch: Batch) -> None:
    class InPlace(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mul_(0.5)

    model = nn.Sequential(
        nn.Linear(5, 4), nn.Linear(4, 4), InPlace(), nn.Linear(4, 4), InPlace(), nn.Linear(4, 3)
    ).double()
    expected = backpropagated(model, lambda: cross_entropy(model(batch[0]), batch[1]))
    rule = dfa.Highway(model, ["0", "1", "3"], "4", waves=3)
    assert_same(step(rule, model, batch), expected, tolerance=1e-12)


@pytest.mark.parametrize("norm", NORMS)
def test_alignment_sees_the_signals_of_training(norm: str, batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a graph that is not cut, signals stay between neighbours."""
    model = residual_network(norm)
    rule = dfa.Highway(model, POINTS, LAST, waves=1)
    sent: list[list[Tensor]] = []
    plain = rule.signals

    def watched(*arguments: Any) -> Iterator[Tensor]:
        sent.append(list(plain(*arguments)))
        return iter(sent[-1])

    monkeypatch.setattr(rule, "signals", watched)
    measured = dfa.measure_alignment(rule, lambda: cross_entropy(model(batch[0]), batch[1]))
    step(rule, model, batch)
    observed, trained = sent
    for one, other in zip(observed, trained, strict=True):
        torch.testing.assert_close(one, other)
    assert measured[POINTS[-2]].mean == pytest.approx(1, abs=1e-12) and measured["0"].mean < 1 - 1e-4


def test_compiled_blocks_run_uncompiled(batch: Batch) -> None:
    model = residual_network("pre")
    expected = backpropagated(model, lambda: cross_entropy(model(batch[0]), batch[1]))
    for block in list(model)[1:-1]:
        block.compile(backend="aot_eager")
    assert_same(step(dfa.Highway(model, POINTS, LAST, waves=4), model, batch), expected, tolerance=1e-12)


@pytest.mark.parametrize(
    ("options", "message"), [({"waves": -1}, "at least 0"), ({"feedback": "fa"}, "unknown feedback")]
)
def test_bad_options(options: dict[str, object], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        dfa.Highway(residual_network(), POINTS, LAST, **options)  # type: ignore[arg-type]


def test_memory_is_no_option() -> None:
    with pytest.raises(TypeError, match="memory"):
        dfa.RULES.build("highway", residual_network(), POINTS, LAST, memory="recompute")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"waves": 2}, dfa.Uses(forward_weights="all", waves=2, extra_forwards=2.0)),
        ({"feedback": "learned_zero"}, dfa.Uses(waves=1, extra_forwards=1.0, state="learned feedback")),
        (
            {"feedback": "kolen_pollack", "norms": ["*.after"]},
            dfa.Uses(forward_weights="gains", waves=1, extra_forwards=1.0, state="learned feedback"),
        ),
        (
            {"feedback": "sign"},
            dfa.Uses(forward_weights="signs", waves=1, extra_forwards=1.0, state="fixed feedback"),
        ),
    ],
)
def test_what_it_uses(options: dict[str, Any], expected: dfa.Uses) -> None:
    assert dfa.Highway(residual_network("post"), POINTS, LAST, **options).uses == expected


class Unrolled(nn.Module):
    """A recurrent cell with an error at each step."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.GRUCell(5, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden, scores = x.new_zeros(len(x), 6), []
        for _ in range(3):
            hidden = self.cell(x, hidden)
            scores.append(self.head(hidden))
        return torch.stack(scores).mean(0)


@pytest.mark.parametrize("waves", [0, 2])
def test_a_point_that_acts_on_two_errors_is_told(waves: int, batch: Batch) -> None:
    """No wave takes the later error to it, so that any number of them is less than backpropagation."""
    model = Unrolled().double()
    rule = dfa.Highway(model, "cell", "head", waves=waves, otherwise="zero")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(2):
            step(rule, model, batch)
    assert sum("acts on error tensor 'head', too" in str(one.message) for one in told) == (waves > 0)


def test_a_term_past_the_error_is_told(batch: Batch) -> None:
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    kept: list[Tensor] = []
    model[2].register_forward_pre_hook(lambda module, arguments: kept.append(arguments[0]))
    rule = dfa.Highway(model, "1", waves=1, otherwise="zero")
    for penalty, expected in ((0.0, 0), (0.1, 1), (0.1, 0)):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            loss = cross_entropy(model(batch[0]), batch[1])
            rule.backward(loss + penalty * kept[-1].square().mean() if penalty else loss)
        assert sum("past the error tensor" in str(one.message) for one in told) == expected
