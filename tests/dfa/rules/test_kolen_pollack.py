"""Weights and their feedback change and decay alike, with every step and with nothing else."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import dfa
from tests.dfa.steps import Batch, step


def test_kolen_and_pollack_meet(mlp: nn.Sequential, batch: Batch) -> None:
    """B - W shrinks by 1 - λ a step, whatever the optimiser does, and B moves by what W moves, decay aside."""
    rule = dfa.KolenPollack(mlp, decay=0.05)
    optimizer = torch.optim.Adam(mlp.parameters(), lr=0.1)
    weight = mlp.get_parameter("2.weight")
    first = rule.feedback_weight("2.weight") - weight.detach()
    for _ in range(20):
        before, held = rule.feedback_weight("2.weight"), weight.detach().clone()
        step(rule, mlp, batch)
        decayed = weight.detach().clone()
        torch.testing.assert_close(decayed, 0.95 * held)
        optimizer.step()
        change = weight.detach() - decayed
        torch.testing.assert_close(rule.feedback_weight("2.weight"), 0.95 * before + change)
    torch.testing.assert_close(rule.feedback_weight("2.weight") - weight.detach(), first * 0.95**20)


def test_weights_and_feedback_decay_with_steps_alone(mlp: nn.Sequential, batch: Batch) -> None:
    """Not in a batch that a GradScaler skips, nor do weights that are loaded count as a step."""
    rule, scaler = dfa.KolenPollack(mlp, decay=0.1), torch.amp.GradScaler("cpu")
    weight = mlp.get_parameter("2.weight")
    optimizer = torch.optim.SGD(mlp.parameters(), lr=0.0)
    for number, factor in ((torch.inf, 1.0), (1.0, 0.9)):
        feedback, before = rule.feedback_weight("2.weight"), weight.detach().clone()
        rule.backward(scaler.scale(cross_entropy(number * mlp(batch[0]), batch[1])))
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        torch.testing.assert_close(weight, factor * before)
        torch.testing.assert_close(rule.feedback_weight("2.weight"), factor * feedback)
    feedback = rule.feedback_weight("2.weight")
    mlp.load_state_dict({name: torch.randn_like(value) for name, value in mlp.state_dict().items()})
    torch.testing.assert_close(rule.feedback_weight("2.weight"), feedback)
    assert not torch.allclose(weight, 0.9 * before)


def test_sparse_gradients_under_a_scaler() -> None:
    scaler, embedding = torch.amp.GradScaler("cpu", init_scale=8.0), nn.Embedding(7, 4, sparse=True)
    model = nn.Sequential(embedding, nn.Linear(4, 3))
    rule = dfa.KolenPollack(model, decay=0.1)
    before = model.get_parameter("1.weight").detach().clone()
    rule.backward(scaler.scale(model(torch.tensor([1, 1, 3])).square().sum()))
    assert embedding.weight.grad is not None and embedding.weight.grad.is_sparse
    torch.testing.assert_close(model.get_parameter("1.weight").detach(), 0.9 * before)


def test_only_weights_with_a_part_in_this_step_decay(batch: Batch) -> None:
    """As after a resumption, which knows nothing of the steps before."""

    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head, self.one, self.two = nn.Linear(5, 5), nn.Linear(5, 3), nn.Linear(5, 3)
            self.turn = 0

        def forward(self, x: Tensor) -> Tensor:
            self.turn += 1
            chosen = self.one if self.turn % 2 else self.two
            return chosen(torch.tanh(self.head(x)))

    model = Branching().double()
    rule = dfa.KolenPollack(model, decay=0.5)
    for _ in range(2):
        before = {name: weight.detach().clone() for name, weight in rule.weights.items()}
        step(rule, model, batch)
    assert rule.replaced == {"two.weight"}  # of the lowest layer autograd needs no weight
    shrunk = {name: float((weight.detach() / before[name]).mean()) for name, weight in rule.weights.items()}
    assert shrunk == pytest.approx({"head.weight": 1.0, "one.weight": 1.0, "two.weight": 0.5})


@pytest.mark.parametrize("options", [{}, {"decay": 0.1}])
@pytest.mark.parametrize("name", ["kolen_pollack", "highway"])
def test_two_passes_before_the_first_backward(name: str, options: dict[str, float], mlp: nn.Sequential) -> None:
    """Weights decay after the first backward, and the second pass was made with them as they were."""
    more = {"feedback": "kolen_pollack", "points": ["1", "3"]} if name == "highway" else {}
    rule = dfa.RULES.build(name, mlp, **options, **more)
    x = torch.randn(7, 5, dtype=torch.double)
    real, fake = mlp(x), mlp(-x)
    rule.backward(real.square().sum())
    with pytest.raises(dfa.PointError, match="add the losses"):
        rule.backward(fake.square().sum())


def test_two_passes_without_decay(mlp: nn.Sequential) -> None:
    rule, x = dfa.KolenPollack(mlp, decay=0), torch.randn(7, 5, dtype=torch.double)
    real, fake = mlp(x), mlp(-x)
    rule.backward(real.square().sum())
    rule.backward(fake.square().sum())
