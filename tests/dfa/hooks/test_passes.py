"""Several forward passes, passes that must leave no trace, and other ways a training loop treats a model."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import dfa
from tests.dfa.reference import assert_same, gradients, segment_gradients
from tests.dfa.steps import Batch, step


def total(*parts: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: sum((part[name] for part in parts), torch.zeros(())) for name in parts[0]}


@pytest.fixture
def rule(mlp: nn.Sequential) -> dfa.DirectFeedbackAlignment:
    return dfa.DirectFeedbackAlignment(mlp, ["1", "3"])


@pytest.fixture
def other() -> Batch:
    return torch.randn(4, 5, dtype=torch.double), torch.tensor([2, 0, 1, 1])


def test_sum_of_losses(rule: dfa.DirectFeedbackAlignment, mlp: nn.Sequential, batch: Batch, other: Batch) -> None:
    expected = total(step(rule, mlp, batch), step(rule, mlp, other, factor=0.3))
    mlp.zero_grad()
    first, second = mlp(batch[0]), mlp(other[0])
    rule.backward(cross_entropy(first, batch[1]) + 0.3 * cross_entropy(second, other[1]))
    assert_same(gradients(mlp), expected, tolerance=1e-12)
    assert not rule.hooks.records


def test_chunks_of_one_batch(rule: dfa.DirectFeedbackAlignment, mlp: nn.Sequential, batch: Batch) -> None:
    expected = step(rule, mlp, batch)
    mlp.zero_grad()
    outputs = torch.cat([mlp(chunk) for chunk in batch[0].split(3)])
    rule.backward(cross_entropy(outputs, batch[1]))
    assert_same(gradients(mlp), expected, tolerance=1e-12)


def test_gradients_accumulate(
    rule: dfa.DirectFeedbackAlignment, mlp: nn.Sequential, batch: Batch, other: Batch
) -> None:
    expected = total(step(rule, mlp, batch), step(rule, mlp, other))
    mlp.zero_grad()
    for x, targets in (batch, other):
        rule.backward(cross_entropy(mlp(x), targets))
    assert_same(gradients(mlp), expected, tolerance=1e-12)


def test_two_passes_with_a_backward_each(
    rule: dfa.DirectFeedbackAlignment, mlp: nn.Sequential, batch: Batch, other: Batch
) -> None:
    """A backward takes the passes its loss depends on, and leaves the others for theirs."""
    expected_first, expected_second = step(rule, mlp, batch), step(rule, mlp, other)
    mlp.zero_grad()
    first, second = cross_entropy(mlp(batch[0]), batch[1]), cross_entropy(mlp(other[0]), other[1])
    rule.backward(second)
    assert_same(gradients(mlp), expected_second, tolerance=1e-12)
    rule.backward(first)
    assert_same(gradients(mlp), total(expected_first, expected_second), tolerance=1e-12)


class TwoNetworks(nn.Module):
    """A coarse and a fine network; the fine one's input depends on the coarse one's values, not on its gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.coarse = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))
        self.fine = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        coarse = self.coarse(x)
        return coarse, self.fine(x + coarse.detach().mean())


def test_networks_with_errors_of_their_own(batch: Batch) -> None:
    x, targets = batch
    model = TwoNetworks().double()
    rule = dfa.DirectFeedbackAlignment(model, "*.1", error_at=["coarse", "fine"])
    coarse, fine = model(x)
    rule.backward(cross_entropy(coarse, targets) + cross_entropy(fine, targets))
    found, matrices = gradients(model), dict(rule.feedback.drawn.items())
    rule.close()
    assert len(matrices) == 2
    shapes = {name.split(":")[0]: matrix for name, matrix in matrices.items()}
    assert shapes["coarse"].shape == (3, 8)
    assert shapes["fine"].shape == (3, 6)
    assert not torch.allclose(shapes["coarse"][:, :6] * 8**0.5, shapes["fine"] * 6**0.5)
    for name, data in (("coarse", x), ("fine", x + coarse.detach().mean())):
        network = getattr(model, name)
        expected = segment_gradients(network, [network[:2], network[2]], data, targets, shapes[name].double())
        assert_same({key.split(".", 1)[1]: value for key, value in found.items() if key.startswith(name)}, expected)


def test_one_loss_may_leave_a_network_out(batch: Batch) -> None:
    x, targets = batch
    model = TwoNetworks().double()
    rule = dfa.DirectFeedbackAlignment(model, "*.1", error_at=["coarse", "fine"])
    rule.backward(cross_entropy(model(x)[1], targets))
    assert {name.split(".")[0] for name in gradients(model)} == {"fine"}


def test_passes_without_gradient_leave_no_trace(
    rule: dfa.DirectFeedbackAlignment, mlp: nn.Sequential, batch: Batch, other: Batch
) -> None:
    expected = step(rule, mlp, batch)
    mlp.zero_grad()
    loss = cross_entropy(mlp(batch[0]), batch[1])
    with torch.no_grad():
        mlp(other[0])
    with torch.inference_mode():
        mlp(other[0])
    with rule.paused():
        mlp(other[0])
    assert len(rule.hooks.records) == 1
    rule.backward(loss)
    assert_same(gradients(mlp), expected, tolerance=0)


@pytest.mark.parametrize("name", ["dfa", "shallow"])
def test_paused_passes_are_ordinary_ones(name: str, mlp: nn.Sequential, batch: Batch) -> None:
    rule = dfa.RULES.build(name, mlp, ["1", "3"])
    with rule.paused():
        cross_entropy(mlp(batch[0]), batch[1]).backward()
    paused = gradients(mlp)
    rule.close()
    mlp.zero_grad()
    cross_entropy(mlp(batch[0]), batch[1]).backward()
    assert_same(paused, gradients(mlp), tolerance=0)


def test_discard(rule: dfa.DirectFeedbackAlignment, mlp: nn.Sequential, batch: Batch) -> None:
    loss = cross_entropy(mlp(batch[0]), batch[1])
    rule.discard()
    with pytest.raises(dfa.PointError, match="no forward pass"):
        rule.backward(loss)


def test_exception_in_mid_forward_is_forgotten(batch: Batch) -> None:
    class Fragile(nn.Module):
        broken = False

        def forward(self, x: Tensor) -> Tensor:
            if self.broken:
                raise RuntimeError("out of order")
            return x

    fragile = Fragile()
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), fragile, nn.Linear(6, 3)).double()
    rule = dfa.DirectFeedbackAlignment(model, "1")
    expected = step(rule, model, batch)
    fragile.broken = True
    with pytest.raises(RuntimeError, match="out of order"):
        model(batch[0])
    fragile.broken = False
    assert_same(step(rule, model, batch), expected, tolerance=0)


def test_autocast(mlp: nn.Sequential, batch: Batch) -> None:
    """Half-precision activations receive half-precision signals; gradients stay near those of single precision."""
    model = mlp.float()
    rule = dfa.DirectFeedbackAlignment(model, ["1", "3"])
    single = (batch[0].float(), batch[1])
    expected = step(rule, model, single)
    model.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(single[0])
        loss = cross_entropy(logits, single[1])
    assert logits.dtype == torch.bfloat16
    rule.backward(loss)
    found = gradients(model)
    assert all(gradient.dtype == torch.float32 for gradient in found.values())
    assert_same(found, expected, tolerance=5e-2)
    model.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):  # backward inside the region projects in single precision too
        rule.backward(cross_entropy(model(single[0]), single[1]))
    assert_same(gradients(model), found, tolerance=1e-6)


def test_gradient_scaler(mlp: nn.Sequential, batch: Batch) -> None:
    model, single = mlp.float(), (batch[0].float(), batch[1])
    rule = dfa.DirectFeedbackAlignment(model, ["1", "3"])
    expected = step(rule, model, single)
    model.zero_grad()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rule.backward(scaler.scale(cross_entropy(model(single[0]), single[1])))
    assert_same({name: gradient / 1024 for name, gradient in gradients(model).items()}, expected)
    scaler.unscale_(optimizer)
    assert_same(gradients(model), expected)


def test_frozen_layers_stay_frozen(rule: dfa.DirectFeedbackAlignment, mlp: nn.Sequential, batch: Batch) -> None:
    expected = step(rule, mlp, batch)
    for index in (2, 4):
        mlp[index].requires_grad_(False)
    rule.close()
    rule = dfa.DirectFeedbackAlignment(mlp, ["1"])
    assert set(step(rule, mlp, batch)) == {"0.weight", "0.bias"}
    assert_same(gradients(mlp), {name: expected[name] for name in ("0.weight", "0.bias")})


def test_named_tuples_keep_their_kind(batch: Batch) -> None:
    from typing import NamedTuple

    class Output(NamedTuple):
        logits: Tensor
        hidden: Tensor

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.middle, self.head = nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Output:
            hidden = self.middle(self.body(x))
            return Output(self.head(hidden), hidden)

    model = Net().double()
    rule = dfa.DirectFeedbackAlignment(model, "body")
    found = []
    for weight in (0.0, 1.0):
        model.zero_grad()
        output = model(batch[0])
        assert isinstance(output, Output)
        rule.backward(cross_entropy(output.logits, batch[1]) + weight * output.hidden.sum())
        found.append(gradients(model))
    assert torch.equal(found[0]["body.weight"], found[1]["body.weight"]), "a second output must not get past the cut"
    assert not torch.equal(found[0]["middle.weight"], found[1]["middle.weight"])


def test_activation_checkpointing(mlp: nn.Sequential, batch: Batch) -> None:
    """Recomputed forwards fire the hooks again; gradients must not change, nor the next pass."""
    from torch.utils.checkpoint import checkpoint

    class Saving(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.top = mlp[:4], mlp[4]
            self.saving = False

        def forward(self, x: Tensor) -> Tensor:
            return self.top(checkpoint(self.body, x, use_reentrant=False) if self.saving else self.body(x))

    model = Saving()
    rule = dfa.DirectFeedbackAlignment(model, ["body.1", "body.3"])
    expected = step(rule, model, batch)
    model.saving = True
    for _ in range(2):
        assert_same(step(rule, model, batch), expected, tolerance=1e-12)
