"""Sequential rules on models whose weights are hard to find: every weight is exchanged, or the rule refuses."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import save_on_cpu
from torch.func import functional_call
from torch.nn.functional import cross_entropy
from torch.nn.utils import parametrizations, weight_norm
from torch.utils.checkpoint import checkpoint

import dfa
from tests.dfa.reference import backpropagated, gradients
from tests.dfa.refusals import assert_right_or_refused, one_step

Batch = tuple[Tensor, Tensor]
SEQUENTIAL = ["fa", "sign_symmetry", "kolen_pollack"]


class Checkpointed(nn.Module):
    """Two of three layers are run again on the way back."""

    def __init__(self, layers: nn.Sequential, run: Callable[..., Tensor]) -> None:
        super().__init__()
        self.layers, self._run = layers, run

    def forward(self, x: Tensor) -> Tensor:
        x = self._run(self.layers[:2], x)
        x = self._run(self.layers[2:4], x)
        return self.layers[4](x)


def again(module: nn.Module, x: Tensor) -> Tensor:
    kept: Tensor = checkpoint(module, x, use_reentrant=False)
    return kept


def on_cpu(module: nn.Module, x: Tensor) -> Tensor:
    with save_on_cpu():
        kept: Tensor = module(x)
    return kept


@pytest.mark.parametrize("run", [again, on_cpu])
@pytest.mark.parametrize("name", SEQUENTIAL)
def test_weights_under_other_hooks_on_what_is_kept(
    name: str, run: Callable[..., Tensor], mlp: nn.Sequential, batch: Batch
) -> None:
    """Activation checkpointing and `save_on_cpu` put hooks of their own over the rule's."""
    plain = Checkpointed(mlp, lambda module, x: module(x))
    rule = dfa.RULES.build(name, plain)
    twin = copy.deepcopy(plain.state_dict())
    expected = one_step(rule, plain, lambda: cross_entropy(plain(batch[0]), batch[1]))
    rule.close()
    plain.load_state_dict(twin)
    model = Checkpointed(mlp, run)
    rule = dfa.RULES.build(name, model)
    assert_right_or_refused(lambda: one_step(rule, model, lambda: cross_entropy(model(batch[0]), batch[1])), expected)


@pytest.mark.parametrize("name", SEQUENTIAL)
def test_functional_call(name: str, mlp: nn.Sequential, batch: Batch) -> None:
    """Other tensors stand in for the parameters, of which the rule knows nothing."""
    rule = dfa.RULES.build(name, mlp)
    before = copy.deepcopy(mlp.state_dict())
    expected = one_step(rule, mlp, lambda: cross_entropy(mlp(batch[0]), batch[1]))
    mlp.load_state_dict(before)

    def train() -> dict[str, Tensor]:
        others = {key: weight.detach().clone().requires_grad_() for key, weight in mlp.named_parameters()}
        rule.backward(cross_entropy(functional_call(mlp, others, (batch[0],)), batch[1]))
        return {key: weight.grad for key, weight in others.items() if weight.grad is not None}

    assert_right_or_refused(train, expected)


@pytest.mark.parametrize("name", SEQUENTIAL)
def test_parts_called_past_the_model(name: str, mlp: nn.Sequential, batch: Batch) -> None:
    """The model's own hooks never run, but the graph of the loss is the same."""
    rule = dfa.RULES.build(name, mlp)
    before, kept = copy.deepcopy(mlp.state_dict()), copy.deepcopy(rule.state_dict())
    expected = one_step(rule, mlp, lambda: cross_entropy(mlp(batch[0]), batch[1]))
    mlp.load_state_dict(before)
    rule.load_state_dict(kept)
    assert_right_or_refused(
        lambda: one_step(rule, mlp, lambda: cross_entropy(mlp[2:](mlp[:2](batch[0])), batch[1])), expected
    )


class StandardisedLinear(nn.Linear):
    """A layer whose weight is standardised first, as in BiT's convolutions."""

    def forward(self, x: Tensor) -> Tensor:
        weight = (self.weight - self.weight.mean(1, keepdim=True)) / self.weight.std(1, keepdim=True)
        return nn.functional.linear(x, weight, self.bias)


DERIVED: dict[str, Callable[[], nn.Module]] = {
    "weight_norm": lambda: weight_norm(nn.Linear(6, 3)),
    "weight_norm as a parametrization": lambda: parametrizations.weight_norm(nn.Linear(6, 3)),
    "spectral_norm": lambda: parametrizations.spectral_norm(nn.Linear(6, 3)),
    "standardised": lambda: StandardisedLinear(6, 3),
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("kind", DERIVED)
@pytest.mark.parametrize("name", SEQUENTIAL)
def test_last_layer_with_a_derived_weight(name: str, kind: str, batch: Batch) -> None:
    """No layer lies above the last one, so its gradients are backpropagation's under every rule."""
    last = DERIVED[kind]()
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), last).double().eval()  # in which spectral_norm iterates no more

    def loss() -> Tensor:
        return cross_entropy(model(batch[0]), batch[1])

    exact = backpropagated(model, loss)
    expected = {key: gradient for key, gradient in exact.items() if key.startswith("2.")}

    def train() -> dict[str, Tensor]:
        found = one_step(dfa.RULES.build(name, model), model, loss)
        return {key: gradient for key, gradient in found.items() if key.startswith("2.")}

    assert_right_or_refused(train, expected)


@pytest.mark.parametrize("kind", DERIVED)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_derived_weight_on_the_way_down_is_refused(kind: str, batch: Batch) -> None:
    """What is made of a weight cannot be exchanged, and would let backpropagation's signal through."""
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), DERIVED[kind]()).double().eval()
    rule = dfa.FeedbackAlignment(model)
    with pytest.raises(dfa.PointError, match="weight"):
        rule.backward(cross_entropy(model(batch[0]), batch[1]))


def test_frozen_weights_do_not_decay(mlp: nn.Sequential, batch: Batch) -> None:
    """As under LoRA, where the base model must stay what it is."""
    mlp.get_parameter("2.weight").requires_grad_(False)
    before = copy.deepcopy(mlp.state_dict())
    rule = dfa.KolenPollack(mlp, decay=0.1)
    for _ in range(3):
        rule.backward(cross_entropy(mlp(batch[0]), batch[1]))
    assert torch.equal(mlp.get_parameter("2.weight"), before["2.weight"])
    assert not gradients(mlp).keys() & {"2.weight"}
