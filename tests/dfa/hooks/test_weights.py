"""Which weights of a graph are exchanged, which are left alone, and what is refused."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy
from torch.nn.utils import parametrizations, prune, weight_norm
from torch.utils.checkpoint import checkpoint

import dfa
from tests.dfa.reference import as_array, assert_close, gradients

Batch = tuple[Tensor, Tensor]


class Model(nn.Module):
    """An input layer, and whatever comes after."""

    def __init__(self, above: Callable[["Model", Tensor], Tensor]) -> None:
        super().__init__()
        self.lower, self.upper = nn.Linear(5, 4), nn.Linear(4, 3)
        self.table = nn.Parameter(torch.randn(4, 4))
        self._above = above

    def forward(self, x: Tensor) -> Tensor:
        return self._above(self, self.lower(x))


def signal_below(model: Model, rule: dfa.SequentialRule, batch: Batch) -> tuple[Tensor, Tensor]:
    """The error at the model's output, and the signal that arrives at the input layer, recovered from its bias."""
    output = model(batch[0][:1])
    output.retain_grad()
    rule.backward(cross_entropy(output, batch[1][:1]))
    assert output.grad is not None and model.lower.bias.grad is not None
    return output.grad[0], model.lower.bias.grad


def test_frozen_weights_are_exchanged(batch: Batch) -> None:
    """As under adapters: the signal goes through B, whether W learns or not."""
    model = Model(lambda self, hidden: self.upper(hidden)).double()
    model.upper.requires_grad_(False)
    rule = dfa.FeedbackAlignment(model)
    error, signal = signal_below(model, rule, batch)
    assert_close(signal, as_array(error @ rule.feedback_weight("upper.weight")))
    assert rule.replaced == {"upper.weight"}


def test_summands_and_looked_up_rows_are_left_alone(batch: Batch) -> None:
    model = Model(lambda self, hidden: self.upper(hidden + self.table[:1] + nn.functional.embedding(_ZERO, self.table)))
    model = model.double()
    rule = dfa.FeedbackAlignment(model)
    error, signal = signal_below(model, rule, batch)
    assert_close(signal, as_array(error @ rule.feedback_weight("upper.weight")))
    assert model.table.grad is not None
    assert_close(model.table.grad[0], 2 * as_array(signal))
    assert rule.replaced == {"upper.weight"}


_ZERO = torch.zeros(1, dtype=torch.long)


def test_a_penalty_on_weights_is_exact(mlp: nn.Sequential, batch: Batch) -> None:
    """Nothing goes down through it: its derivative is W's, not B's."""
    rule = dfa.FeedbackAlignment(mlp)
    rule.backward(cross_entropy(mlp(batch[0]), batch[1]))
    without = gradients(mlp)
    without = {name: gradient.clone() for name, gradient in without.items()}
    mlp.zero_grad()
    weight = mlp.get_parameter("2.weight")
    penalty = weight.square().sum() + (weight @ weight.t()).diagonal().sum()
    rule.backward(cross_entropy(mlp(batch[0]), batch[1]) + penalty)
    for name, gradient in gradients(mlp).items():
        added = 4 * weight.detach() if name == "2.weight" else 0
        torch.testing.assert_close(gradient, without[name] + added)


def test_layers_of_another_module_are_exact(batch: Batch) -> None:
    trunk, head = nn.Sequential(nn.Linear(5, 4), nn.Tanh()).double(), nn.Linear(4, 3).double()
    rule = dfa.FeedbackAlignment(trunk)
    with rule.paused():
        exact = torch.autograd.grad(cross_entropy(head(trunk(batch[0])), batch[1]), [*trunk.parameters()])
    rule.backward(cross_entropy(head(trunk(batch[0])), batch[1]))
    for parameter, expected in zip(trunk.parameters(), exact, strict=True):
        torch.testing.assert_close(parameter.grad, expected)


def test_layers_of_a_recurrent_kernel(batch: Batch) -> None:
    """In single precision a fused one, in double steps written out."""
    model = nn.LSTM(5, 4, batch_first=True)
    found = []
    for dtype in (torch.float32, torch.float64):
        model = model.to(dtype)
        rule = dfa.FeedbackAlignment(model, seed=1)
        model.zero_grad()
        rule.backward(model(batch[0].to(dtype)[None])[0].square().sum())
        found.append({name: gradient.double() for name, gradient in gradients(model).items()})
        assert rule.replaced == {"weight_hh_l0"} or dtype == torch.float32
        rule.close()
    for name, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][name], rtol=1e-4, atol=1e-5)


MASK = torch.tensor([[1.0, 0, 1, 0]] * 3, dtype=torch.double)
LINEAR: dict[str, tuple[Callable[[Model, Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]] = {
    "masked": (lambda self, hidden: hidden @ (self.upper.weight * MASK).t(), lambda upper, table: upper * MASK),
    "joined": (
        lambda self, hidden: hidden @ torch.cat([self.upper.weight, self.table]).t(),
        lambda upper, table: torch.cat([upper, table]),
    ),
    "copied and scaled": (
        lambda self, hidden: hidden @ (self.upper.weight / 3).t().contiguous(),
        lambda upper, table: upper / 3,
    ),
    "of blocks on a diagonal": (
        lambda self, hidden: hidden.repeat(1, 3) @ torch.block_diag(*[self.upper.weight] * 3).t(),
        lambda upper, table: torch.cat([upper.t()] * 3, dim=1).t(),
    ),
    "rows by number": (
        lambda self, hidden: hidden @ self.upper.weight[torch.tensor([2, 0])].t(),
        lambda upper, table: upper[[2, 0]],
    ),
    "added up": (
        lambda self, hidden: hidden @ (self.upper.weight + self.table[:3]).t(),
        lambda upper, table: upper + table[:3],
    ),
    "by a Fourier transform": (
        lambda self, hidden: hidden @ torch.fft.fft(self.upper.weight).real.t(),
        lambda upper, table: torch.fft.fft(upper).real,
    ),
    "between itself and zero": (
        lambda self, hidden: hidden @ self.upper.weight.lerp(torch.zeros_like(MASK), 0.25).t(),
        lambda upper, table: 0.75 * upper,
    ),
    "beside a product": (
        lambda self, hidden: hidden @ torch.addcmul(self.upper.weight, torch.zeros_like(MASK), MASK).t(),
        lambda upper, table: upper,
    ),
}


@pytest.mark.parametrize("kind", LINEAR)
def test_a_linear_function_of_weights_becomes_that_of_the_feedback(kind: str, batch: Batch) -> None:
    forward, function = LINEAR[kind]
    model = Model(forward).double()
    rule = dfa.FeedbackAlignment(model, seed=2)
    output = model(batch[0][:1])
    output.retain_grad()
    rule.backward(output.square().sum())
    assert output.grad is not None and model.lower.bias.grad is not None
    feedback = function(rule.feedback_weight("upper.weight"), rule.feedback_weight("table"))
    assert_close(model.lower.bias.grad, as_array(output.grad[0] @ feedback))
    for weight in (model.upper.weight, model.table):  # their own gradients are exact, given the error
        (expected,) = torch.autograd.grad(
            forward(model, model.lower(batch[0][:1]).detach()), weight, output.grad, allow_unused=True
        )
        assert (weight.grad is None) == (expected is None)
        if weight.grad is not None and expected is not None:
            torch.testing.assert_close(weight.grad, expected)


REFUSED: dict[str, Callable[[Model, Tensor], Tensor]] = {
    "its size": lambda self, hidden: nn.functional.linear(hidden, self.upper.weight.abs()),
    "its signs": lambda self, hidden: nn.functional.linear(hidden, self.upper.weight.sign()),
    "its direction": lambda self, hidden: nn.functional.linear(hidden, self.upper.weight / self.upper.weight.norm()),
    "two multiplied": lambda self, hidden: nn.functional.linear(hidden, self.upper.weight @ self.table),
    "its positive entries": lambda self, hidden: nn.functional.linear(hidden, self.upper.weight.clamp(min=0)),
    "its positive entries, picked": lambda self, hidden: nn.functional.linear(
        hidden, torch.where(self.upper.weight > 0, self.upper.weight, 0.0)
    ),
    "its positive entries, filled up": lambda self, hidden: nn.functional.linear(
        hidden, self.upper.weight.masked_fill(self.upper.weight < 0, 0.0)
    ),
    "its entries, sorted": lambda self, hidden: nn.functional.linear(hidden, self.upper.weight.sort(dim=0)[0]),
    "an exponent": lambda self, hidden: hidden.abs() ** self.upper.weight[0],
    "a divisor": lambda self, hidden: hidden / self.upper.weight[0],
    "a reentrant checkpoint": lambda self, hidden: checkpoint(self.upper, hidden, use_reentrant=True),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_other_parts_of_a_weight_are_refused(kind: str, batch: Batch) -> None:
    model = Model(REFUSED[kind]).double()
    rule = dfa.FeedbackAlignment(model)
    with pytest.raises(dfa.PointError, match="checkpointing" if "checkpoint" in kind else r"upper\.weight"):
        rule.backward(model(batch[0]).sum())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_pruned_weights(mlp: nn.Sequential, batch: Batch) -> None:
    """What is pruned away in W is in B, too."""
    prune.l1_unstructured(mlp[2], "weight", 0.5)
    rule = dfa.FeedbackAlignment(mlp)
    lower, _, upper, _, head = mlp
    hidden = lower(batch[0]).relu()
    activation = upper(hidden).tanh()
    output = head(activation).detach()
    error = (output.softmax(1) - nn.functional.one_hot(batch[1], 3)) / len(output)
    signal = error @ rule.feedback_weight("4.weight") * (1 - activation.detach() ** 2)
    signal = signal @ (rule.feedback_weight("2.weight_orig") * mlp.get_buffer("2.weight_mask")) * (hidden.detach() > 0)
    rule.backward(cross_entropy(mlp(batch[0]), batch[1]))
    torch.testing.assert_close(lower.bias.grad, signal.sum(0))


def test_copies_of_frozen_weights_are_refused(mlp: nn.Sequential, batch: Batch) -> None:
    """Of which the graph knows nothing."""
    mlp.float().get_parameter("2.weight").requires_grad_(False)
    rule = dfa.FeedbackAlignment(mlp, weights="2.weight")
    with torch.autocast("cpu", torch.bfloat16):
        loss = cross_entropy(mlp(batch[0].float()), batch[1])
    with pytest.raises(dfa.PointError, match=r"2\.weight"):
        rule.backward(loss)


def test_parameters_of_later_are_refused(mlp: nn.Sequential, batch: Batch) -> None:
    """As of adapters that are put in after the rule was made, or weights loaded with `assign=True`."""
    rule = dfa.FeedbackAlignment(mlp)
    mlp.append(nn.Linear(3, 3).double())
    with pytest.raises(dfa.PointError, match="did not have when"):
        rule.backward(cross_entropy(mlp(batch[0]), batch[1]))
    del mlp[-1]
    mlp.load_state_dict(copy.deepcopy(mlp.state_dict()), assign=True)
    with pytest.raises(dfa.PointError, match=r"weight '\d\.weight' took no part"):
        rule.backward(cross_entropy(mlp(batch[0]), batch[1]))


def test_tensors_without_gradient_in_the_place_of_parameters(mlp: nn.Sequential, batch: Batch) -> None:
    rule = dfa.FeedbackAlignment(mlp)
    others = {name: parameter.detach().clone() for name, parameter in mlp.named_parameters()}
    others["0.bias"].requires_grad_()
    with pytest.raises(dfa.PointError, match=r"weight\(s\) 2\.weight reach"):  # as a copy
        rule.backward(cross_entropy(functional_call(mlp, others, (batch[0],)), batch[1]))
    for tensor in others.values():
        tensor.detach().mul_(2)
    with pytest.raises(dfa.PointError, match="did not have when"):
        rule.backward(cross_entropy(functional_call(mlp, others, (batch[0],)), batch[1]))


def test_gradients_past_the_rule_are_refused(mlp: nn.Sequential, batch: Batch) -> None:
    """They would be backpropagation's."""
    rule = dfa.FeedbackAlignment(mlp)
    with pytest.raises(dfa.PointError, match=r"rule\.backward"):
        cross_entropy(mlp(batch[0]), batch[1]).backward()
    rule.backward(cross_entropy(mlp(batch[0]), batch[1]))


@pytest.mark.parametrize("function", [weight_norm, parametrizations.weight_norm, parametrizations.spectral_norm])
def test_functions_of_frozen_weights_are_refused(
    function: Callable[[nn.Module], nn.Module], mlp: nn.Sequential, batch: Batch
) -> None:
    function(mlp[2]).requires_grad_(False)
    rule = dfa.FeedbackAlignment(mlp)
    with pytest.raises(dfa.PointError, match=r"weight '2\..*' is frozen and used through a function"):
        rule.backward(cross_entropy(mlp(batch[0]), batch[1]))
