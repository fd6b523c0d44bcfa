"""memory="recompute" where modules hold more than weights: the second run finds what the first one found, or says so.

Every model here is a part below one point and a head, so that the rule's gradient is the vector-Jacobian product of the
part with e B, which autograd computes.
"""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy
from torch.nn.utils import spectral_norm

import dfa
from tests.dfa.reference import assert_same, gradients, only_matrix
from tests.dfa.steps import Batch, step

WIDTH = 6


class Centred(nn.Module):
    """Subtracts a running mean, which every pass replaces by a new tensor."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, WIDTH)
        self.register_buffer("mean", torch.zeros(5))

    def forward(self, x: Tensor) -> Tensor:
        self.mean = 0.5 * self.mean + 0.5 * x.detach().mean(0)
        return self.layer(x - self.mean).tanh()


class Counting(nn.Module):
    """Writes to a buffer that its output depends on."""

    passes: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, WIDTH)
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        return self.layer(x * self.passes.clone()).tanh()


class Noisy(nn.Module):
    """Draws from a generator of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.generator = nn.Linear(5, WIDTH), torch.Generator().manual_seed(3)

    def forward(self, x: Tensor) -> Tensor:
        mask = torch.rand(x.shape, generator=self.generator, dtype=x.dtype) > 0.5
        return self.layer(x * mask).tanh()


class Conditioned(nn.Module):
    """Reads an attribute that the model sets before every pass."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.scale = nn.Linear(5, WIDTH), torch.ones(())

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x * self.scale).tanh()


def regularised() -> nn.Module:
    return nn.Sequential(nn.Linear(5, WIDTH), nn.BatchNorm1d(WIDTH), nn.Tanh(), nn.Dropout(0.5))


def make(part: Callable[[], nn.Module]) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(part(), nn.Linear(WIDTH, 3)).double()


def by_autograd(model: nn.Module, batches: list[Batch], matrix: Tensor, at_point: bool = False) -> dict[str, Tensor]:
    """The gradients of the part below the point under DFA, summed over forward passes; the model is not changed.

    The error is taken at the output, or at the point itself.
    """
    part, head = copy.deepcopy(model).children()
    parameters = dict(part.named_parameters())
    total = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    for x, targets in batches:
        hidden = part(x)
        handed_on = hidden.detach().requires_grad_()
        output = head(handed_on)
        (error,) = torch.autograd.grad(cross_entropy(output, targets), handed_on if at_point else output)
        found = torch.autograd.grad(hidden, list(parameters.values()), error @ matrix)
        total = {name: before + new for (name, before), new in zip(total.items(), found, strict=True)}
    return {f"0.{name}": gradient for name, gradient in total.items()}


def of_part(model: nn.Module) -> dict[str, Tensor]:
    return {name: gradient for name, gradient in gradients(model).items() if name.startswith("0.")}


@pytest.mark.parametrize("computed", [False, True])
def test_parameters_of_functional_call(computed: bool, batch: Batch) -> None:
    """They are used and trained in the place of the module's own, also where they come from others."""
    model = make(lambda: nn.Sequential(nn.Linear(5, WIDTH), nn.Tanh()))
    sources = {name: (1.5 * value.detach()).requires_grad_() for name, value in model.named_parameters()}
    given = {name: value.exp() for name, value in sources.items()} if computed else sources
    with dfa.DirectFeedbackAlignment(model, "0", memory="recompute") as rule:
        rule.backward(cross_entropy(functional_call(model, given, (batch[0],)), batch[1]))
        matrix = only_matrix(rule)
    assert not gradients(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(given[name])
    expected = by_autograd(model, [batch], matrix)
    for name, gradient in expected.items():
        torch.testing.assert_close(sources[name].grad, gradient * (given[name].detach() if computed else 1), msg=name)


def test_two_segments_whose_parameters_are_computed_in_one_graph(batch: Batch) -> None:
    """What they come from gets the gradient of both; the graph between is walked once, not by each segment."""
    torch.manual_seed(3)
    blocks = [nn.Sequential(nn.Linear(5, 5), nn.Tanh()) for _ in range(2)]
    model = nn.Sequential(*blocks, nn.Linear(5, 4)).double()
    source = torch.randn(5, 5, dtype=torch.float64, requires_grad=True)
    weights = ("0.0.weight", "1.0.weight")

    def train(parameters: dict[str, Tensor]) -> None:
        torch.manual_seed(0)  # of the matrices
        with dfa.DirectFeedbackAlignment(model, ["0", "1"], memory="recompute") as rule:
            rule.backward(cross_entropy(functional_call(model, parameters, (batch[0],)), batch[1]))

    shared = source.tanh()
    train(dict.fromkeys(weights, shared))
    leaves = {name: shared.detach().clone().requires_grad_() for name in weights}
    train(leaves)
    both = torch.stack([leaf.grad for leaf in leaves.values() if leaf.grad is not None])
    expected = both.sum(0) * (1 - shared.detach() ** 2)
    torch.testing.assert_close(source.grad, expected)


def test_evaluation_between_forward_and_backward(batch: Batch) -> None:
    """Dropout and batch norm run again as they ran."""
    model = make(regularised)
    rule = dfa.DirectFeedbackAlignment(model, "0", memory="recompute")
    step(rule, model, batch)  # draws the matrix
    before, state = copy.deepcopy(model), torch.get_rng_state()
    model.zero_grad()
    loss = cross_entropy(model(batch[0]), batch[1])
    statistics = copy.deepcopy(model[0]).state_dict()
    model.eval()
    with torch.no_grad():
        model(batch[0] + 1)
    rule.backward(loss)
    assert not any(part.training for part in model.modules())
    for name, value in model[0].state_dict().items():
        torch.testing.assert_close(value, statistics[name], msg=name)
    torch.set_rng_state(state)
    assert_same(of_part(model), by_autograd(before, [batch], only_matrix(rule)))


STATEFUL: dict[str, Callable[[], nn.Module]] = {
    "spectral_norm": lambda: nn.Sequential(spectral_norm(nn.Linear(5, WIDTH)), nn.Tanh()),
    "a buffer that is replaced": Centred,
    "a buffer that is written to": Counting,
}


@pytest.mark.parametrize("error_at", ["", "0"])
@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize("kind", STATEFUL)
def test_buffers_are_those_that_each_pass_found(kind: str, passes: int, error_at: str, batch: Batch) -> None:
    """And afterwards they are what the forward passes left, once."""
    model = make(STATEFUL[kind])
    reference = copy.deepcopy(model)
    rule = dfa.DirectFeedbackAlignment(model, "0", error_at, memory="recompute")
    batches = list(zip(batch[0].tensor_split(passes), batch[1].tensor_split(passes), strict=True))
    rule.backward(torch.stack([cross_entropy(model(x), targets) for x, targets in batches]).sum())
    assert_same(of_part(model), by_autograd(reference, batches, only_matrix(rule), bool(error_at)))
    for x, _ in batches:
        reference(x)
    for name, value in reference.named_buffers():
        torch.testing.assert_close(model.get_buffer(name), value, msg=name)


def test_parameters_that_were_stepped_in_between(batch: Batch) -> None:
    model = make(lambda: nn.Sequential(nn.Linear(5, WIDTH), nn.Tanh()))
    rule = dfa.DirectFeedbackAlignment(model, "0", memory="recompute")
    first, second = (cross_entropy(model(x), batch[1]) for x in (batch[0], batch[0] + 1))
    rule.backward(first)
    torch.optim.SGD(model[0].parameters(), lr=0.1).step()
    with pytest.raises(dfa.PointError, match=r"segment '0': parameter 'weight' has changed since the forward pass"):
        rule.backward(second)


@pytest.mark.parametrize("dtype", [torch.double, torch.float])
@pytest.mark.parametrize("part", [Noisy, Conditioned])
def test_what_is_another_the_second_time_is_refused(
    part: Callable[[], nn.Module], dtype: torch.dtype, batch: Batch
) -> None:
    model = make(part).to(dtype)
    rule = dfa.DirectFeedbackAlignment(model, "0", memory="recompute")
    loss = cross_entropy(model(batch[0].to(dtype)), batch[1])
    if isinstance(model[0], Conditioned):
        model[0].scale = torch.tensor(1.1)
    with pytest.raises(dfa.PointError, match=r"segment '0': point '0' gave other values when it was run again"):
        rule.backward(loss)


def test_numbers_that_are_not_finite_are_no_difference(batch: Batch) -> None:
    """As in a step that a GradScaler skips."""
    model = make(lambda: nn.Sequential(nn.Linear(5, WIDTH), nn.Tanh()))
    x = batch[0].clone()
    x[0, 0], x[1, 1] = float("nan"), float("inf")
    step(dfa.DirectFeedbackAlignment(model, "0", memory="recompute"), model, (x, batch[1]))
