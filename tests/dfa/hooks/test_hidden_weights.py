"""Weights that a graph does not show: frozen ones that are new or complex, slices written in place, compiled parts."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import prune, spectral_norm, weight_norm

import dfa
from tests.dfa.reference import as_array, assert_close

Batch = tuple[Tensor, Tensor]
SEQUENTIAL = ["fa", "sign_symmetry", "kolen_pollack"]


def frozen_middle() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    model[2].requires_grad_(False)
    return model


def load(model: nn.Sequential) -> None:
    model[2].load_state_dict({key: value + 0.1 for key, value in model[2].state_dict().items()}, assign=True)


def put_in(model: nn.Sequential) -> None:
    model.insert(2, nn.Linear(4, 4).double().requires_grad_(False))


def replace_parameter(model: nn.Sequential) -> None:
    model[2].weight = nn.Parameter(model[2].get_parameter("weight") + 0.1, requires_grad=False)


@pytest.mark.parametrize("change", [load, put_in, replace_parameter])
@pytest.mark.parametrize("name", SEQUENTIAL)
def test_a_frozen_weight_that_is_new(name: str, change: Callable[[nn.Sequential], None], batch: Batch) -> None:
    model = frozen_middle()
    rule = dfa.RULES.build(name, model)
    rule.backward(cross_entropy(model(batch[0]), batch[1]))
    change(model)
    with pytest.raises(dfa.PointError, match=r"frozen weight '2\.weight' is not the one"):
        rule.backward(cross_entropy(model(batch[0]), batch[1]))


@pytest.mark.filterwarnings("ignore:Complex modules")
@pytest.mark.parametrize("name", ["fa", "kolen_pollack"])
@pytest.mark.parametrize("learns", [True, False])
def test_complex_weights(name: str, learns: bool) -> None:
    """Signals through Bᴴ, or Bᵀ where a layer conjugates its weight: as autograd has them with B in W's place."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lower = nn.Linear(5, 4, dtype=torch.cdouble)
            self.middle, self.upper = (nn.Parameter(torch.randn(4, 4, dtype=torch.cdouble)) for _ in range(2))

        def forward(self, x: Tensor) -> Tensor:
            return self.lower(x) @ self.middle @ self.upper.conj()

    model, x = Two(), torch.randn(1, 5, dtype=torch.cdouble)
    for weight in (model.middle, model.upper):
        weight.requires_grad_(learns)
    rule = dfa.RULES.build(name, model)
    assert isinstance(rule, dfa.SequentialRule)
    below = [rule.feedback_weight(name).detach().clone() for name in ("middle", "upper")]
    out = model(x)
    rule.backward(out.abs().square().sum())
    hidden = torch.zeros(1, 4, dtype=torch.cdouble, requires_grad=True)
    (hidden @ below[0] @ below[1].conj()).backward(2 * out.detach())
    assert hidden.grad is not None
    assert model.lower.bias.grad is not None
    torch.testing.assert_close(model.lower.bias.grad, hidden.grad[0])


class Written(nn.Module):
    """A layer, and what is written into its output in place."""

    def __init__(self, write: Callable[["Written", Tensor], Tensor]) -> None:
        super().__init__()
        self.lower, self.upper, self.table = nn.Linear(5, 4), nn.Linear(4, 3), nn.Parameter(torch.randn(4, 4))
        self._write = write

    def forward(self, x: Tensor) -> Tensor:
        return self.upper(self._write(self, torch.tanh(self.lower(x))))


def product(model: Written, hidden: Tensor) -> Tensor:
    out = 0 * hidden
    out[:, :4].addmm_(hidden, model.table)
    return out


def scaled(model: Written, hidden: Tensor) -> Tensor:
    out = 1 * hidden
    out[:4, :4].mul_(model.table)
    return out


def clamped(model: Written, hidden: Tensor) -> Tensor:
    weight = 1 * model.table
    weight[:, :4].clamp_(min=0)
    return hidden @ weight


@pytest.mark.parametrize("write", [product, scaled, clamped])
def test_functions_of_weights_in_a_slice(write: Callable[[Written, Tensor], Tensor], batch: Batch) -> None:
    model = Written(write).double()
    rule = dfa.FeedbackAlignment(model)
    with pytest.raises(dfa.PointError, match="table reach"):
        rule.backward(cross_entropy(model(batch[0]), batch[1]))


def put(model: Written, hidden: Tensor) -> Tensor:
    out = 1 * hidden
    out[:, :2] = model.table[:1, :2]
    return out


def added(model: Written, hidden: Tensor) -> Tensor:
    out = 1 * hidden
    out[:, 1:3] += model.table[:1, :2]
    return out


def added_to(model: Written, hidden: Tensor) -> Tensor:
    out = model.table[:1].repeat(len(hidden), 1)
    out[:, :3] = hidden[:, :3]
    return out


@pytest.mark.parametrize("write", [put, added, added_to])
def test_weights_that_are_put_or_added(write: Callable[[Written, Tensor], Tensor], batch: Batch) -> None:
    """A token of its own, or a position's embedding."""
    model = Written(write).double()
    rule = dfa.FeedbackAlignment(model)
    out = model(batch[0])
    out.retain_grad()
    rule.backward(cross_entropy(out, batch[1]))
    assert rule.replaced == {"upper.weight"}
    assert out.grad is not None
    signal = out.grad @ rule.feedback_weight("upper.weight")
    places: dict[Callable[[Written, Tensor], Tensor], slice] = {put: slice(0, 2), added: slice(1, 3)}
    part = signal[:, places.get(write, slice(3, 4))].sum(0)
    columns = slice(3, 4) if write is added_to else slice(0, 2)
    assert model.table.grad is not None
    assert_close(model.table.grad[0, columns], as_array(part))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("name", SEQUENTIAL)
def test_scripted_part(name: str, mlp: nn.Sequential, batch: Batch) -> None:
    """Once it has been optimised, its graph shows one node, which would send the exact signal."""
    middle = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8)).double()
    model = nn.Sequential(mlp[:2], torch.jit.script(middle), mlp[2:])
    rule = dfa.RULES.build(name, model)
    assert isinstance(rule, dfa.SequentialRule)
    with pytest.raises(dfa.PointError, match=r"reach CppFunction"):
        for _ in range(4):
            rule.backward(cross_entropy(model(batch[0]), batch[1]))
            assert {"1.0.weight", "1.2.weight"} <= rule.replaced


@pytest.mark.parametrize("name", ["w_v", "w_g", "w_orig"])
def test_frozen_parameters_with_the_names_of_others(name: str, batch: Batch) -> None:
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    model.register_parameter(name, nn.Parameter(torch.randn(4, 4).double(), requires_grad=False))
    rule = dfa.FeedbackAlignment(model)
    rule.backward(cross_entropy(model[2](model[:2](batch[0]) @ model.get_parameter(name)), batch[1]))
    assert name in rule.replaced


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    "wrap", [weight_norm, spectral_norm, lambda layer: prune.random_unstructured(layer, "weight", 0.5)]
)
def test_frozen_weights_of_a_function(wrap: Callable[[nn.Linear], nn.Module], batch: Batch) -> None:
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), wrap(nn.Linear(4, 3)), nn.Linear(3, 3)).double()
    model[2].requires_grad_(False)
    rule = dfa.FeedbackAlignment(model)
    with pytest.raises(dfa.PointError, match="is frozen and used through a function"):
        rule.backward(cross_entropy(model(batch[0]), batch[1]))
