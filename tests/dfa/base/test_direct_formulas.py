"""Parameter gradients under `dfa` against the explicit formulas in NumPy."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import dfa
from tests.dfa.reference import Array, as_array, assert_close, gradients, only_matrix, softmax_error


def step(model: nn.Module, points: list[str], x: Tensor, targets: Tensor) -> tuple[Array, Array]:
    """One backward under `dfa`; the error in closed form and the feedback matrix."""
    rule = dfa.DirectFeedbackAlignment(model, points)
    logits = model(x)
    logits.retain_grad()
    rule.backward(cross_entropy(logits, targets))
    error = softmax_error(as_array(logits), targets.numpy())
    assert_close(logits.grad, error, 1e-12)
    return error, as_array(only_matrix(rule))


def test_linear(mlp: nn.Sequential, batch: tuple[Tensor, Tensor]) -> None:
    x, targets = batch
    error, matrix = step(mlp, ["1", "3"], x, targets)
    w1, b1, w2, b2, _, _ = (as_array(parameter) for parameter in mlp.parameters())
    a1 = as_array(x) @ w1.T + b1
    h1 = np.maximum(a1, 0)
    h2 = np.tanh(h1 @ w2.T + b2)
    d1 = (error @ matrix[:, :8]) * (a1 > 0)
    d2 = (error @ matrix[:, :6]) * (1 - h2**2)
    assert matrix.shape == (3, 8)
    found = gradients(mlp)
    for layer, delta, below in ((0, d1, as_array(x)), (2, d2, h1), (4, error, h2)):
        assert_close(found[f"{layer}.weight"], delta.T @ below)
        assert_close(found[f"{layer}.bias"], delta.sum(axis=0))


class GraphNet(nn.Module):
    """Two layers Â X W + b with a sparse Â."""

    def __init__(self, adjacency: Tensor) -> None:
        super().__init__()
        self.adjacency = adjacency
        self.w1 = nn.Parameter(torch.randn(5, 4).double())
        self.b1 = nn.Parameter(torch.randn(4).double())
        self.w2 = nn.Parameter(torch.randn(4, 3).double())
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        h = self.act(torch.sparse.mm(self.adjacency, x @ self.w1) + self.b1)
        return torch.sparse.mm(self.adjacency, h @ self.w2)


def test_graph_convolution() -> None:
    """Loss on a few nodes; the error of the others is zero at the output, and so is their signal."""
    nodes, train = 9, torch.tensor([0, 2, 5])
    dense = torch.rand(nodes, nodes).double() * (torch.rand(nodes, nodes) < 0.4) + torch.eye(nodes).double()
    x, targets = torch.randn(nodes, 5).double(), torch.tensor([0, 1, 2])
    model = GraphNet(dense.to_sparse())
    rule = dfa.DirectFeedbackAlignment(model, "act")
    logits = model(x)
    rule.backward(cross_entropy(logits[train], targets))
    matrix, a_hat = as_array(only_matrix(rule)), as_array(dense)
    error = np.zeros((nodes, 3))
    error[train.numpy()] = softmax_error(as_array(logits)[train.numpy()], targets.numpy())
    a1 = a_hat @ as_array(x) @ as_array(model.w1) + as_array(model.b1)
    d1 = (error @ matrix) * (a1 > 0)
    assert_close(model.w2.grad, np.maximum(a1, 0).T @ a_hat.T @ error)
    assert_close(model.w1.grad, as_array(x).T @ a_hat.T @ d1)
    assert_close(model.b1.grad, d1.sum(axis=0))


def normalisation_backward(delta: Array, normalised: Array, std: Array, axis: int) -> Array:
    """Gradient through (x − mean) / std along an axis."""
    mean = delta.mean(axis=axis, keepdims=True)
    slope = (delta * normalised).mean(axis=axis, keepdims=True)
    return (delta - mean - normalised * slope) / std


def test_layer_norm(batch: tuple[Tensor, Tensor]) -> None:
    x, targets = batch
    below, norm, above = nn.Linear(5, 6), nn.LayerNorm(6), nn.Linear(6, 3)
    model = nn.Sequential(below, norm, nn.Tanh(), above).double()
    nn.init.normal_(norm.weight)
    error, matrix = step(model, ["2"], x, targets)
    a = as_array(x) @ as_array(below.weight).T + as_array(below.bias)
    std = np.sqrt(a.var(axis=1, keepdims=True) + norm.eps)
    normalised = (a - a.mean(axis=1, keepdims=True)) / std
    h = np.tanh(normalised * as_array(norm.weight) + as_array(norm.bias))
    d_norm = (error @ matrix) * (1 - h**2)
    d_linear = normalisation_backward(d_norm * as_array(norm.weight), normalised, std, axis=1)
    assert_close(norm.weight.grad, (d_norm * normalised).sum(axis=0))
    assert_close(norm.bias.grad, d_norm.sum(axis=0))
    assert_close(below.weight.grad, d_linear.T @ as_array(x))
    assert_close(below.bias.grad, d_linear.sum(axis=0))
    assert_close(above.weight.grad, error.T @ h)


@pytest.mark.parametrize("normalised", [False, True])
def test_convolution(normalised: bool) -> None:
    """3×3 convolution (with BatchNorm over batch and space), point of 2·3·3 features, then a linear layer."""
    x, targets = torch.randn(4, 2, 5, 5).double(), torch.tensor([0, 1, 2, 1])
    norm = nn.BatchNorm2d(2) if normalised else nn.Identity()
    convolution = nn.Conv2d(2, 2, 3)
    model = nn.Sequential(convolution, norm, nn.ReLU(), nn.Flatten(), nn.Linear(18, 3)).double()
    if isinstance(norm, nn.BatchNorm2d):
        nn.init.normal_(norm.weight)
    error, matrix = step(model, ["2"], x, targets)
    data = as_array(x)
    kernel, bias = (as_array(parameter) for parameter in convolution.parameters())
    a = np.zeros((4, 2, 3, 3))
    for row in range(3):
        for column in range(3):
            a[:, :, row, column] = (
                np.einsum("nckl,ockl->no", data[:, :, row : row + 3, column : column + 3], kernel) + bias
            )
    delta = (error @ matrix).reshape(a.shape)
    if isinstance(norm, nn.BatchNorm2d):
        flat = a.transpose(0, 2, 3, 1).reshape(-1, 2)
        std = np.sqrt(flat.var(axis=0, keepdims=True) + norm.eps)
        hat = (flat - flat.mean(axis=0)) / std
        gain = as_array(norm.weight)
        after = hat * gain + as_array(norm.bias)
        d_norm = delta.transpose(0, 2, 3, 1).reshape(-1, 2) * (after > 0)
        assert_close(norm.weight.grad, (d_norm * hat).sum(axis=0))
        assert_close(norm.bias.grad, d_norm.sum(axis=0))
        delta = normalisation_backward(d_norm * gain, hat, std, axis=0).reshape(4, 3, 3, 2).transpose(0, 3, 1, 2)
    else:
        delta = delta * (a > 0)
        assert_close(gradients(convolution)["bias"], delta.sum(axis=(0, 2, 3)))
    d_kernel = np.zeros_like(kernel)
    for row in range(3):
        for column in range(3):
            d_kernel[:, :, row, column] = np.einsum(
                "nohw,nchw->oc", delta, data[:, :, row : row + 3, column : column + 3]
            )
    assert_close(convolution.weight.grad, d_kernel)


def test_embedding() -> None:
    """Rows of the table collect the signals of the samples that used them; several fields are flattened together."""
    fields, targets = torch.tensor([[0, 4], [1, 4], [0, 3], [2, 2]]), torch.tensor([0, 1, 0, 1])
    model = nn.Sequential(nn.Embedding(6, 3), nn.Flatten(), nn.Linear(6, 2)).double()
    error, matrix = step(model, ["0"], fields, targets)
    assert matrix.shape == (2, 6)
    signal = (error @ matrix).reshape(4, 2, 3)
    expected = np.zeros((6, 3))
    for sample in range(4):
        for field in range(2):
            expected[fields[sample, field]] += signal[sample, field]
    found = gradients(model)["0.weight"]
    assert_close(found, expected)
    assert found[5].abs().max() == 0
