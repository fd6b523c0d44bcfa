"""Every layer against PyTorch Geometric's own on dense features, values and gradients; the spline against loops."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import ChebConv, DNAConv, GATConv, GCNConv

import benchmarks.families.graphs.models  # noqa: F401  (registers the models)
from benchmarks.errors import ConfigError
from benchmarks.families.graphs.graph import Graph
from benchmarks.families.graphs.layers import (
    AttentionConvolution,
    ChebyshevConvolution,
    GraphConvolution,
    NeighbourhoodAggregation,
    SplineConvolution,
)
from benchmarks.families.graphs.sparse import SparseMatrix
from benchmarks.registry import MODELS

OPTIONS = {"in_channels": 9, "num_classes": 4}
POINTS = {
    "cheb": ["dropout"],
    "gcn": ["dropout"],
    "spline": ["act"],
    "gat": ["act"],
    "dna": [f"acts.{i}" for i in range(6)],
    "gae": ["act"],
}


def build(name: str) -> nn.Module:
    options = {"in_channels": 9} if name == "gae" else OPTIONS
    model: nn.Module = MODELS.build(name, **options).double()
    return model


def assert_same_function(
    ours: nn.Module, theirs: nn.Module, mine: Callable[[], Tensor], pyg: Callable[[], Tensor]
) -> None:
    """Copy the parameters over, then compare outputs and the gradients of a random functional of them."""
    theirs.load_state_dict(ours.state_dict())
    out, expected = mine(), pyg()
    torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-9)
    upstream = torch.randn_like(out)
    gradients = torch.autograd.grad(out, list(ours.parameters()), upstream)
    wanted = torch.autograd.grad(expected, list(theirs.parameters()), upstream)
    for gradient, want in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(gradient, want, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (GraphConvolution(9, 4), GCNConv(9, 4)),
        (ChebyshevConvolution(9, 4), ChebConv(9, 4, K=2)),
        (AttentionConvolution(9, 4, 3), GATConv(9, 4, 3)),
        (AttentionConvolution(9, 4, 2, concat=False), GATConv(9, 4, 2, concat=False)),
    ],
    ids=["gcn", "cheb", "gat", "gat averaged"],
)
@pytest.mark.parametrize("features", ["sparse", "dense"])
def test_layer_equals_that_of_pyg(graph: Graph, ours: nn.Module, theirs: nn.Module, features: str) -> None:
    ours, theirs = ours.double(), theirs.double()
    nn.init.normal_(ours.get_parameter("bias"))
    x = graph.x.to_dense()
    given = graph.x if features == "sparse" else x
    assert_same_function(ours, theirs, lambda: ours(given, graph), lambda: theirs(x, graph.edge_index))


@pytest.mark.parametrize(("heads", "groups"), [(4, 8), (4, 4), (8, 2)])
@pytest.mark.parametrize("layers", [1, 3])
def test_neighbourhood_aggregation_equals_that_of_pyg(graph: Graph, layers: int, heads: int, groups: int) -> None:
    history = torch.randn(12, layers, 16, dtype=torch.float64, requires_grad=True)
    ours, theirs = NeighbourhoodAggregation(16, heads, groups).double(), DNAConv(16, heads, groups).double()
    assert_same_function(
        ours, theirs, lambda: ours(history.unbind(1), graph), lambda: theirs(history, graph.edge_index)
    )
    upstream = torch.randn(12, 16, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(ours(history.unbind(1), graph), history, upstream)
    (wanted,) = torch.autograd.grad(theirs(history, graph.edge_index), history, upstream)
    torch.testing.assert_close(gradient, wanted)


def test_attention_dropout_equals_loops_over_edges(graph: Graph) -> None:
    """Shares of a source's layers are dropped one by one, in the order (target, head, source, layer)."""
    heads, channels, layers = 4, 4, 3
    history = [torch.randn(12, heads * channels, dtype=torch.float64) for _ in range(layers)]
    layer = NeighbourhoodAggregation(16, heads, 8, dropout=0.6).double()
    torch.manual_seed(5)
    out = layer(history, graph)
    torch.manual_seed(5)
    adjacency = graph.normalised_adjacency().to_dense()
    kept = iter(F.dropout(torch.ones(int((adjacency > 0).sum()) * heads, layers, dtype=torch.float64), 0.6))
    attention, expected = layer.multi_head, torch.zeros(12, heads, channels, dtype=torch.float64)
    query = attention.lin_q(history[-1]).view(12, heads, channels)
    keys = torch.stack([attention.lin_k(x).view(12, heads, channels) for x in history])
    values = torch.stack([attention.lin_v(x).view(12, heads, channels) for x in history])
    for target in range(12):
        for head in range(heads):
            for source in adjacency[target].nonzero().flatten().tolist():
                odds = (keys[:, source, head] @ query[target, head] / channels**0.5).exp()
                share = odds / (1 + odds.sum()) * next(kept)
                expected[target, head] += adjacency[target, source] * (share @ values[:, source, head])
    torch.testing.assert_close(out, expected.flatten(1))


def test_single_precision_gradients_of_a_deep_network_equal_those_of_pyg_in_double(graph: Graph) -> None:
    """Within 1e-6 of the length of each gradient, at five layers of 128 channels."""
    model = MODELS.build("dna", **OPTIONS, dropout=0.0, attention_dropout=0.0)
    convs = [DNAConv(128, 8, 16).double() for _ in model.convs]
    embed, classifier = nn.Linear(9, 128).double(), nn.Linear(128, 4).double()
    theirs = nn.ModuleDict({"embed": embed, "convs": nn.ModuleList(convs), "classifier": classifier})
    theirs.load_state_dict(model.state_dict())
    history = embed(graph.x.to_dense()).relu()[:, None]
    for conv in convs:
        history = torch.cat([history, conv(history, graph.edge_index).relu()[:, None]], dim=1)
    F.cross_entropy(classifier(history[:, -1]), graph.y).backward()
    single = Graph(SparseMatrix.from_dense(graph.x.to_dense().float()), graph.y, graph.edge_index)
    F.cross_entropy(model(single), graph.y).backward()
    for (name, ours), wanted in zip(model.named_parameters(), theirs.parameters(), strict=True):
        assert ours.grad is not None and wanted.grad is not None
        assert (ours.grad - wanted.grad).norm() < 1e-6 * wanted.grad.norm(), name


@pytest.mark.parametrize("kernel_size", [2, 4])
def test_spline_convolution_equals_loops_over_edges(graph: Graph, kernel_size: int) -> None:
    graph.edge_attr = torch.rand(graph.edge_index.size(1), 1, dtype=torch.float64)
    graph.edge_attr[0], graph.edge_attr[1] = 0.0, 1.0  # both ends of the interval
    layer = SplineConvolution(9, 4, kernel_size).double()
    nn.init.normal_(layer.bias)
    x = graph.x.to_dense()
    expected = x @ layer.lin.weight.t() + layer.bias
    for node in range(graph.num_nodes):
        messages = []
        for edge in (graph.edge_index[1] == node).nonzero().flatten().tolist():
            position = float(graph.edge_attr[edge, 0]) * (kernel_size - 1)
            left = min(int(position), kernel_size - 2)
            share = position - left
            weight = (1 - share) * layer.weight[left] + share * layer.weight[left + 1]
            messages.append(x[graph.edge_index[0, edge]] @ weight)
        if messages:
            expected[node] = expected[node] + torch.stack(messages).mean(0)
    torch.testing.assert_close(layer(graph.x, graph), expected)


def test_spline_initialisation_bounds() -> None:
    layer = SplineConvolution(50, 400, 2)
    # PyG: 1/sqrt(kernel_size · in) for the kernel, 1/sqrt(in) for the root weight.
    assert 0.098 < layer.weight.abs().max() <= 0.1
    assert 0.138 < layer.lin.weight.abs().max() <= 50**-0.5
    assert layer.bias.abs().max() == 0


def test_a_graph_without_pseudo_coordinates_is_refused(graph: Graph) -> None:
    with pytest.raises(ConfigError, match="needs a pseudo-coordinate per edge"):
        build("spline")(Graph(graph.x, graph.y, graph.edge_index))


@pytest.mark.parametrize("name", sorted(POINTS))
def test_model_output_and_feedback_points(graph: Graph, name: str) -> None:
    """The modules named as points exist, fire once, in depth order, and carry one row per node."""
    model = build(name)
    fired: list[tuple[str, int]] = []
    for point in POINTS[name]:
        model.get_submodule(point).register_forward_hook(
            lambda _module, _inputs, out, point=point: fired.append((point, out.size(0)))
        )
    assert model(graph).shape == (12, 16 if name == "gae" else 4)
    assert fired == [(point, 12) for point in POINTS[name]]


@pytest.mark.parametrize("name", ["cheb", "gcn", "spline", "gat", "dna"])
def test_nothing_bypasses_the_points(graph: Graph, name: str) -> None:
    """With its points cut, a model's lower layers get no gradient: no hidden path around a point."""
    model = build(name)
    for point in POINTS[name]:
        model.get_submodule(point).register_forward_hook(lambda _module, _inputs, out: out.detach())
    model(graph).sum().backward()
    learning = {parameter.split(".")[0] for parameter, value in model.named_parameters() if value.grad is not None}
    assert learning == {"classifier" if name == "dna" else "convs"}
    frozen = [value for parameter, value in model.named_parameters() if parameter.startswith(("convs.0.", "embed."))]
    assert all(value.grad is None for value in frozen)


@pytest.mark.parametrize("name", ["cheb", "gcn"])
def test_parameter_names_of_the_first_layer(name: str) -> None:
    """Weight decay falls on `convs.0.**`; those names are part of the configuration."""
    names = [parameter for parameter, _ in build(name).named_parameters()]
    assert any(parameter.startswith("convs.0.") for parameter in names)
    assert any(parameter.startswith("convs.1.") for parameter in names)


def test_dna_with_log_softmax_returns_log_probabilities(graph: Graph) -> None:
    model = MODELS.build("dna", **OPTIONS, hidden=16, log_softmax=True).double().eval()
    torch.testing.assert_close(model(graph).exp().sum(1), torch.ones(12, dtype=torch.float64))


def test_dropout_acts_in_training_only(graph: Graph) -> None:
    model = build("gat")
    assert not torch.equal(model(graph), model(graph))
    model.eval()
    assert torch.equal(model(graph), model(graph))


def test_graph_matrices_are_built_once(graph: Graph) -> None:
    assert graph.normalised_adjacency() is graph.normalised_adjacency()
    assert isinstance(graph.normalised_adjacency(), SparseMatrix)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("gcn", {"dropout": 1.0}),
        ("gat", {"attention_dropout": -0.1}),
        ("dna", {"heads": 7}),
        ("spline", {"kernel_size": 1}),
    ],
)
def test_wrong_options_are_refused(name: str, options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        MODELS.build(name, **OPTIONS, **options)
