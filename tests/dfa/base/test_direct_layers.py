"""Gradients under `dfa` of larger parts, against the same network run segment by segment."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import dfa
from tests.dfa.reference import (
    assert_close,
    assert_same,
    backpropagated,
    gradients,
    only_matrix,
    segment_gradients,
    softmax_error,
)

Segment = Callable[[Tensor], Tensor]
TOKENS = torch.arange(8).reshape(2, 4) % 3


class Attention(nn.Module):
    """Self-attention and a linear layer; the attention module returns a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.inward = nn.Linear(5, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.inward(x)
        return self.head(self.attention(h, h, h)[0])


def check(
    model: nn.Module, points: list[str], segments: list[Segment], x: Tensor, targets: Tensor
) -> dfa.DirectFeedbackAlignment:
    rule = dfa.DirectFeedbackAlignment(model, points)
    logits = model(x)
    rule.backward(cross_entropy(logits.flatten(0, -2), targets.flatten()))
    found, matrix = gradients(model), only_matrix(rule)
    rule.close()
    assert_same(found, segment_gradients(model, segments, x, targets, matrix))
    assert found.keys() == dict(model.named_parameters()).keys()
    return rule


def test_attention_with_tuple_output() -> None:
    model, x = Attention().double(), torch.randn(2, 4, 5).double()

    def attend(h: Tensor) -> Tensor:
        return model.attention(h, h, h)[0]

    check(model, ["attention"], [lambda x: attend(model.inward(x)), model.head], x, TOKENS)
    check(model, ["inward", "attention"], [model.inward, attend, model.head], x, TOKENS)


def test_transformer_blocks() -> None:
    blocks = [nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True) for _ in range(3)]
    model = nn.Sequential(*blocks, nn.Linear(8, 3)).double()
    x = torch.randn(2, 4, 8).double()
    check(model, ["[0-2]"], list(model), x, TOKENS)


def test_points_inside_transformer_blocks() -> None:
    """Micro points: after the first norm, the feed-forward's activation and the second norm; the residual bypasses."""
    block = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, activation=nn.ReLU(), batch_first=True)
    model = nn.Sequential(block, nn.Linear(8, 3)).double()
    x = torch.randn(2, 4, 8).double()
    rule = dfa.DirectFeedbackAlignment(model, ["0.norm1", "0.activation", "0.norm2"])
    logits = model(x)
    rule.backward(cross_entropy(logits.flatten(0, 1), TOKENS.flatten()))
    found, matrix = gradients(model), only_matrix(rule)
    rule.close()
    model.zero_grad()
    error = torch.from_numpy(softmax_error(logits.detach().flatten(0, 1).numpy(), TOKENS.flatten().numpy()))
    first = block.norm1(x + block.self_attn(x, x, x)[0])
    hidden = torch.relu(block.linear1(first.detach()))
    second = block.norm2(first.detach() + block.linear2(hidden.detach()))
    model[1](second.detach()).backward(error.reshape(2, 4, 3))
    for activation in (first, hidden, second):
        activation.backward((error @ matrix[:, : activation.shape[-1]]).reshape(activation.shape))
    assert_same(found, gradients(model))


def test_convolution_and_batch_norm_stack() -> None:
    def block(channels: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(channels, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())

    model = nn.Sequential(block(2), block(4), nn.Sequential(nn.Flatten(), nn.Linear(64, 3))).double()
    check(model, ["0", "1.2"], list(model), torch.randn(5, 2, 4, 4).double(), torch.arange(5) % 3)


def test_embedding_then_recurrent_tuple() -> None:
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.lstm, self.head = nn.Embedding(7, 4), nn.LSTM(4, 6, batch_first=True), nn.Linear(6, 3)

        def forward(self, tokens: Tensor) -> Tensor:
            return self.head(self.lstm(self.table(tokens))[0])

    model = Reader().double()
    segments: list[Segment] = [model.table, lambda h: model.lstm(h)[0], model.head]
    check(model, ["table", "lstm"], segments, torch.randint(7, (2, 4)), TOKENS)


class Bypassed(nn.Module):
    """A point on one branch; the other branch carries the true error past it, to shared parameters below."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.act = nn.Linear(5, 6), nn.Linear(6, 6), nn.ReLU()
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        stem = self.stem(x)
        return self.head(stem + self.act(self.inner(stem)))


def test_further_outputs_of_the_error_tensors_module_learn(batch: tuple[Tensor, Tensor]) -> None:
    """Above the points all learns exactly, whatever output it leads to; below, from the first alone."""

    class TwoHeads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.act = nn.Linear(5, 6), nn.Tanh()
            self.logits, self.auxiliary = nn.Linear(6, 3), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            hidden = self.act(self.body(x))
            return self.logits(hidden), {"auxiliary": self.auxiliary(hidden)}

    def loss() -> Tensor:
        logits, more = model(batch[0])
        return cross_entropy(logits, batch[1]) + more["auxiliary"].square().mean()

    model = TwoHeads().double()
    expected = backpropagated(model, loss)
    rule = dfa.DirectFeedbackAlignment(model, "act")
    rule.backward(loss())
    found = gradients(model)
    assert found.keys() == expected.keys()
    for name in ("logits.weight", "logits.bias", "auxiliary.weight", "auxiliary.bias"):
        assert torch.equal(found[name], expected[name])


def test_residual_branch_past_a_point(batch: tuple[Tensor, Tensor]) -> None:
    x, targets = batch
    model = Bypassed().double()
    rule = dfa.DirectFeedbackAlignment(model, "act")
    logits = model(x)
    rule.backward(cross_entropy(logits, targets))
    found, matrix = gradients(model), only_matrix(rule)
    rule.close()
    model.zero_grad()
    error = torch.from_numpy(softmax_error(logits.detach().numpy(), targets.numpy()))
    model.head(model.stem(x) + model.act(model.inner(model.stem(x))).detach()).backward(error)
    model.act(model.inner(model.stem(x))).backward(error @ matrix)
    assert_same(found, gradients(model))


def test_point_that_is_the_error_tensor() -> None:
    """Macro points of the language models: the last block is a point, and the error is taken at its output."""
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    x, targets = torch.randn(7, 5).double(), torch.arange(7) % 3
    rule = dfa.DirectFeedbackAlignment(model, ["1", "3"], error_at="3")
    logits = model(x)
    rule.backward(cross_entropy(logits, targets))
    found, matrix = gradients(model), only_matrix(rule)
    rule.close()
    model.zero_grad()
    first = model[1](model[0](x))
    second = model[3](model[2](first.detach()))
    top = second.detach().requires_grad_()
    model[4](top).backward(torch.from_numpy(softmax_error(logits.detach().numpy(), targets.numpy())))
    assert top.grad is not None
    first.backward(top.grad @ matrix)
    second.backward(top.grad @ matrix)
    assert_same(found, gradients(model))


def test_error_inside_the_model(mlp: nn.Sequential, batch: tuple[Tensor, Tensor]) -> None:
    """Above the error tensor, and between it and the topmost point, learning is backpropagation's."""
    x, targets = batch
    rule = dfa.DirectFeedbackAlignment(mlp, "1", error_at="3")
    logits = mlp(x)
    rule.backward(cross_entropy(logits, targets))
    found, matrix = gradients(mlp), only_matrix(rule)
    rule.close()
    mlp.zero_grad()
    error = torch.from_numpy(softmax_error(logits.detach().numpy(), targets.numpy()))
    below = mlp[1](mlp[0](x))
    mlp[4](mlp[3](mlp[2](below.detach()))).backward(error)
    hidden = torch.tanh(mlp[2](below)).detach()
    weight = mlp.get_parameter("4.weight")
    assert_close(weight.grad, error.T @ hidden)
    below.backward(error @ weight.detach() @ matrix)
    assert_same(found, gradients(mlp))


def test_module_used_twice_with_two_widths(batch: tuple[Tensor, Tensor]) -> None:
    """One activation module for all layers, as many models have it: each use is a point of its own."""

    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.head = nn.Linear(5, 8), nn.Linear(8, 6), nn.Linear(6, 3)
            self.act = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.act(self.second(self.act(self.first(x)))))

    model = Shared().double()
    segments: list[Segment] = [
        lambda x: torch.relu(model.first(x)),
        lambda h: torch.relu(model.second(h)),
        model.head,
    ]
    rule = check(model, ["act"], segments, *batch)
    assert only_matrix(rule).shape == (3, 8)
