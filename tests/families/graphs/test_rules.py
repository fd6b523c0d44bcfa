"""Feedback through the edges of a graph and pseudo-errors, against dense NumPy."""

import copy
import pickle
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import dfa
from benchmarks.config import compose_config, resolve
from benchmarks.families.graphs.graph import Graph
from benchmarks.families.graphs.rules import GraphBackpropagation, GraphFeedback
from benchmarks.families.graphs.sparse import SparseMatrix
from benchmarks.run.build import build_model, build_rule, build_task, load_components
from tests.dfa.reference import as_array, assert_close, softmax_error

NODES, KNOWN = 8, 4


class Convolutions(nn.Module):
    """Three convolutions Â h Wᵀ with tanh between them."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(*shape, bias=False) for shape in ((5, 6), (6, 4), (4, 3)))
        self.acts = nn.ModuleList(nn.Tanh() for _ in range(2))

    def forward(self, graph: Graph) -> torch.Tensor:
        adjacency = graph.normalised_adjacency()
        hidden = adjacency @ (graph.x @ self.get_parameter("layers.0.weight").t())
        for act, layer in zip(self.acts, list(self.layers)[1:], strict=True):
            hidden = adjacency @ layer(act(hidden))
        return hidden


@pytest.fixture
def graph() -> Graph:
    torch.manual_seed(0)
    edges = torch.tensor([[0, 1, 1, 2, 2, 3, 4, 5, 5, 6, 0, 4], [1, 0, 2, 1, 3, 2, 5, 4, 6, 5, 4, 0]])
    return Graph(SparseMatrix.from_dense(torch.randn(NODES, 5)), torch.arange(NODES) % 3, edges)


def gradient_of(parameter: nn.Parameter) -> torch.Tensor:
    assert parameter.grad is not None
    return parameter.grad


def pseudo_error(error: np.ndarray, adjacency: np.ndarray, alpha: float, steps: int) -> np.ndarray:
    spread = error
    for _ in range(steps):
        spread = alpha * adjacency @ spread + (1 - alpha) * error
    others = spread[KNOWN:]
    lengths = np.linalg.norm(others, axis=1)
    scale = np.linalg.norm(error[:KNOWN], axis=1).mean() / lengths[lengths > 0].mean()
    return np.concatenate([error[:KNOWN], others * scale])


@pytest.mark.parametrize("alpha", [0.0, 0.8])
def test_signals_in_numpy(alpha: float, graph: Graph) -> None:
    model = Convolutions()
    rule = GraphFeedback(model, ["acts.*"], alpha=alpha, steps=3)
    logits = model(graph)
    rule.backward(cross_entropy(logits[:KNOWN], graph.y[:KNOWN]))
    adjacency = as_array(graph.normalised_adjacency().to_dense())
    w1, w2, w3 = (as_array(weight) for weight in model.parameters())
    h1 = np.tanh(adjacency @ as_array(graph.x.to_dense()) @ w1.T)
    h2 = np.tanh(adjacency @ h1 @ w2.T)
    error = np.zeros((NODES, 3))
    error[:KNOWN] = softmax_error((adjacency @ h2 @ w3.T)[:KNOWN], graph.y[:KNOWN].numpy())
    error = pseudo_error(error, adjacency, alpha, steps=3) if alpha else error
    (matrix,) = (as_array(buffer) for buffer in rule.feedback.drawn.values())
    d2 = adjacency @ error @ matrix[:, :4] * (1 - h2**2)
    d1 = adjacency @ adjacency @ error @ matrix[:, :6] * (1 - h1**2)
    first, second, third = (weight.grad for weight in model.parameters())
    assert_close(third, error.T @ adjacency @ h2, 1e-4)
    assert_close(second, d2.T @ adjacency @ h1, 1e-4)
    assert_close(first, d1.T @ adjacency @ as_array(graph.x.to_dense()), 1e-4)


@pytest.mark.parametrize("name", ["graph_dfa", "graph_bp"])
def test_every_pass_keeps_its_own_graph(name: str, graph: Graph) -> None:
    def loss(of: Graph) -> torch.Tensor:
        return cross_entropy(model(of)[:KNOWN], of.y[:KNOWN])

    def gradients(value: torch.Tensor) -> list[torch.Tensor]:
        model.zero_grad()
        rule.backward(value)
        return [gradient_of(parameter).clone() for parameter in model.parameters()]

    model = Convolutions()
    other = Graph(SparseMatrix.from_dense(torch.randn(NODES, 5)), graph.y, graph.edge_index.flip(0).roll(3, 1) % 7)
    rule = dfa.RULES.build(name, model, ["acts.*"])
    of_one, of_other = gradients(loss(graph)), gradients(loss(other))
    value = loss(graph)
    with torch.no_grad():
        model(other)  # an evaluation in between
    model(other)
    for found, expected in zip(gradients(value), of_one, strict=True):
        assert torch.equal(found, expected)
    for found, one, another in zip(gradients(loss(graph) + loss(other)), of_one, of_other, strict=True):
        assert torch.allclose(found, one + another, atol=1e-6)
    assert not torch.allclose(of_one[0], of_other[0])


def test_a_part_of_a_model_has_no_graph(graph: Graph) -> None:
    model = Convolutions()
    whole = nn.ModuleList([model])  # whose hooks a call of the model alone does not meet
    with (
        GraphFeedback(whole, ["0.acts.*"], "0") as rule,
        pytest.raises(dfa.PointError, match=r"no graph of point '0\.acts"),
    ):
        rule.backward(cross_entropy(model(graph), graph.y))


def test_without_hops_and_pseudo_errors_it_is_dfa(graph: Graph) -> None:
    gradients = []
    model = Convolutions()
    kinds: list[Callable[..., dfa.Rule]] = [partial(GraphFeedback, hops=False, alpha=0.0), dfa.DirectFeedbackAlignment]
    for kind in kinds:
        rule = kind(model, ["acts.*"])
        model.zero_grad()
        rule.backward(cross_entropy(model(graph)[:KNOWN], graph.y[:KNOWN]))
        gradients.append([gradient_of(parameter).clone() for parameter in model.parameters()])
        rule.close()
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))
    assert not any(module._forward_hooks for module in model.modules())


def test_backpropagation_of_pseudo_errors(graph: Graph) -> None:
    model = Convolutions()
    rule = GraphBackpropagation(model, ["acts.*"], alpha=0.8, steps=3)
    logits = model(graph)
    rule.backward(cross_entropy(logits[:KNOWN], graph.y[:KNOWN]))
    found = [gradient_of(parameter).clone() for parameter in model.parameters()]
    rule.close()
    model.zero_grad()
    error = np.zeros((NODES, 3))
    error[:KNOWN] = softmax_error(as_array(logits)[:KNOWN], graph.y[:KNOWN].numpy())
    spread = pseudo_error(error, as_array(graph.normalised_adjacency().to_dense()), 0.8, steps=3)
    model(graph).backward(torch.from_numpy(spread).float())
    for gradient, parameter in zip(found, model.parameters(), strict=True):
        assert_close(gradient, as_array(gradient_of(parameter)), 1e-4)


@pytest.mark.parametrize("name", ["graph_dfa", "graph_bp"])
def test_pauses_and_exact_batches_know_nothing_of_pseudo_errors(name: str, graph: Graph) -> None:
    def gradients(backward: Callable[[torch.Tensor], None]) -> list[torch.Tensor]:
        model.zero_grad()
        backward(cross_entropy(model(graph)[:KNOWN], graph.y[:KNOWN]))
        return [gradient_of(parameter).clone() for parameter in model.parameters()]

    model = Convolutions()
    exact = gradients(torch.Tensor.backward)
    rule = dfa.RULES.build(name, model, ["acts.*"])
    usual = gradients(rule.backward)
    with rule.paused():
        paused = gradients(torch.Tensor.backward)
    rule.close()
    rule = dfa.RULES.build("calibrate", model, ["acts.*"], rule=name, every=2)
    calibrated = [gradients(rule.backward) for _ in range(2)]
    for found, expected in ((paused, exact), (calibrated[0], exact), (calibrated[1], usual)):
        assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
    assert not torch.allclose(usual[0], exact[0])


def test_other_models_are_refused() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    with GraphFeedback(model, "0"), pytest.raises(dfa.PointError, match="whose first argument is a Graph"):
        model(torch.randn(2, 3))
    with pytest.raises(ValueError, match="alpha must be in"):
        GraphFeedback(model, "0", alpha=1.0)


@pytest.mark.parametrize(
    ("model", "of_the_input"),
    [
        ("cheb", {"convs.0.lins.0.weight", "convs.0.lins.1.weight"}),
        ("gcn", {"convs.0.lin.weight"}),
        ("spline", {"convs.0.weight", "convs.0.lin.weight"}),
        ("gat", {"convs.0.lin.weight"}),
        ("dna", {"embed.weight"}),
    ],
)
def test_sequential_rules_exchange_every_weight_that_a_signal_meets(model: str, of_the_input: set[str]) -> None:
    """All but those of the input layer, whose features want no signal."""
    overrides = ["task=cora", f"model={model}", "rule=fa", "scale=smoke", "task.source=stand_in"]
    config = resolve(compose_config(overrides))
    load_components(config)
    task = build_task(config)
    network = build_model(config, task)
    rule = build_rule(config, network)
    assert isinstance(rule, dfa.FeedbackAlignment)
    rule.backward(task.loss(network, next(iter(task.train_batches(1)))))
    assert {*rule.weights} - rule.replaced == of_the_input


@pytest.mark.parametrize("rule", [GraphFeedback, GraphBackpropagation])
def test_a_model_under_a_rule_can_be_copied_and_pickled(rule: Callable[..., dfa.Rule], graph: Graph) -> None:
    model = Convolutions()
    expected = model(graph)
    points = ["acts.*"] if rule is GraphFeedback else []
    with rule(model, points):
        for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            torch.testing.assert_close(copied(graph), expected, rtol=0, atol=0)
