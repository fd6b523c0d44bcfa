"""Mistakes in a user's own loop or rule, each told in one line, and uses that look like mistakes and are none."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import dfa
from dfa.shares import BackwardShare


def perceptron() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))


def inputs() -> Tensor:
    return torch.randn(4, 5, generator=torch.Generator().manual_seed(1))


def gradients(model: nn.Module) -> list[Tensor | None]:
    return [parameter.grad for parameter in model.parameters()]


@pytest.mark.parametrize("name", sorted(set(dfa.RULES) - {"bp", "fa", "sign_symmetry", "kolen_pollack"}))
@pytest.mark.parametrize("where", ["points", "silent", "error_at"])
def test_patterns_from_an_iterator_are_refused(name: str, where: str) -> None:
    given: dict[str, Any] = {"points": ["1"], where: iter(["3"])}
    with pytest.raises(dfa.PointError, match="a list or tuple of patterns, not in a list_iterator"):
        dfa.RULES.build(name, perceptron(), **given)


def test_two_models_with_rules_share_no_feedback_point() -> None:
    trunk = nn.Sequential(nn.Linear(5, 6), nn.Tanh())
    actor, critic = nn.Sequential(trunk, nn.Linear(6, 3)), nn.Sequential(trunk, nn.Linear(6, 1))
    rule = dfa.DirectFeedbackAlignment(actor, points=["0"])
    for points in (["0"], ["0.1"]):
        with pytest.raises(dfa.PointError, match="shares a feedback point"):
            dfa.DirectFeedbackAlignment(critic, points=points)
    rule.close()
    dfa.DirectFeedbackAlignment(critic, points=["0"]).close()


def test_a_part_that_no_rule_cuts_may_be_shared() -> None:
    embedding = nn.Linear(5, 6)
    models = [nn.Sequential(embedding, nn.Tanh(), nn.Linear(6, 3)) for _ in range(2)]
    rules = [dfa.DirectFeedbackAlignment(model, points=["1"]) for model in models]
    for model, rule in zip(models, rules, strict=True):
        embedding.weight.grad = None
        rule.backward(model(inputs()).square().mean())
        assert embedding.weight.grad is not None


class Answering(dfa.DirectFeedbackAlignment):
    answer: Callable[[list[Tensor]], Any]

    def signals(self, error_name: str, error: Tensor, points: Any) -> Any:
        return type(self).answer(list(super().signals(error_name, error, points)))


@pytest.mark.parametrize("memory", ["keep", "recompute"])
@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            lambda signals: [signal[:, :2] for signal in signals],
            r"shape \(4, 2\) for feedback point '\d', whose",
        ),
        (lambda signals: signals[:1], "no tensor for feedback point"),
        (lambda signals: None, "must give a tensor for each feedback point, got a NoneType"),
        (lambda signals: [signal.tolist() for signal in signals], "no tensor for feedback point"),
    ],
)
def test_signals_that_do_not_fit_their_points(answer: Any, message: str, memory: str) -> None:
    model = perceptron()
    rule = type("Own", (Answering,), {"answer": staticmethod(answer)})(model, ["1", "3"], memory=memory)
    with rule, pytest.raises(dfa.FeedbackError, match=message):
        rule.backward(model(inputs()).square().mean())


def test_more_signals_than_points() -> None:
    model = perceptron()
    rule = type("Own", (Answering,), {"answer": staticmethod(lambda signals: signals * 2)})(model, ["1", "3"])
    with rule, pytest.raises(dfa.FeedbackError, match="more signals than the 2 feedback points take"):
        rule.backward(model(inputs()).square().mean())


@pytest.mark.parametrize("points", [[1, 3], [nn.Tanh()], nn.Tanh(), 1])
def test_points_that_are_no_names(points: Any) -> None:
    with pytest.raises(dfa.PointError, match="named by patterns, such as 'blocks"):
        dfa.DirectFeedbackAlignment(perceptron(), points=points)


@pytest.mark.parametrize("name", ["bp", "dfa", "shallow", "fa"])
def test_a_rule_on_something_that_is_no_model(name: str) -> None:
    with pytest.raises(dfa.PointError, match=r"an nn\.Module, got a generator"):
        dfa.RULES.build(name, perceptron().parameters(), ["1"])


@pytest.mark.parametrize("name", ["bp", "dfa", "shallow", "fa"])
@pytest.mark.parametrize("change", [Tensor.item, lambda loss: [loss, loss]], ids=["a number", "a list"])
def test_a_loss_that_is_no_tensor(name: str, change: Callable[[Tensor], Any]) -> None:
    model = perceptron()
    with dfa.RULES.build(name, model, ["1", "3"]) as rule:
        loss = change(model(inputs()).square().mean())
        with pytest.raises(dfa.PointError, match="the loss must be the tensor"):
            rule.backward(loss)


def test_a_loss_computed_without_gradients() -> None:
    model = perceptron()
    rule = dfa.DirectFeedbackAlignment(model, ["1", "3"])
    with torch.no_grad():
        loss = model(inputs()).square().mean()
    with pytest.raises(dfa.PointError, match="no_grad"):
        rule.backward(loss)


def test_what_measure_alignment_takes() -> None:
    model = perceptron()
    rule = dfa.DirectFeedbackAlignment(model, ["1", "3"])
    for arguments in ((model, lambda: model(inputs()).sum()), (rule, model(inputs()).sum())):
        with pytest.raises(dfa.PointError, match="a function that runs the model"):
            dfa.measure_alignment(*arguments)


def test_a_point_that_comes_as_another_module_goes() -> None:
    class Stack(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(nn.Linear(5, 5) for _ in range(2))
            self.spare = nn.Linear(1, 1)
            self.head = nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            for block in self.blocks:
                x = block(x).tanh()
            return self.head(x)

    model = Stack()
    rule = dfa.DirectFeedbackAlignment(model, ["blocks.*"])
    rule.backward(model(inputs()).square().mean())
    del model.spare
    model.blocks.append(nn.Linear(5, 5))
    with pytest.raises(dfa.PointError, match=r"added after the rule was made.*blocks\.2"):
        rule.backward(model(inputs()).square().mean())


class Checkpointed(nn.Module):
    def __init__(self, again: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.below = nn.Sequential(nn.Linear(5, 6), nn.Tanh())
        self.above = nn.Sequential(nn.Linear(6, 6), nn.Tanh())
        self.head = nn.Linear(6, 3)
        self.again = again

    def trunk(self, x: Tensor) -> Tensor:
        return self.above(self.below(x))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(checkpoint(self.trunk, x, use_reentrant=False) if self.again else self.trunk(x))


def test_alignment_is_measured_through_checkpoints() -> None:
    def measured(model: nn.Module) -> list[tuple[str, float, float]]:
        with dfa.DirectFeedbackAlignment(model, ["below", "above"], seed=0) as rule:
            points = dfa.measure_alignment(rule, lambda: model(inputs()).square().mean())
        return [(name, point.mean, point.bp_norm) for name, point in points.items()]

    assert measured(Checkpointed(True)) == measured(Checkpointed(False))


def test_alignment_leaves_out_points_below_which_all_is_frozen() -> None:
    model = perceptron()
    with dfa.DirectFeedbackAlignment(model, ["1", "3"], seed=0) as rule:
        whole = dfa.measure_alignment(rule, lambda: model(inputs()).square().mean())
        model[0].requires_grad_(False)
        rest = dfa.measure_alignment(rule, lambda: model(inputs()).square().mean())
    assert list(whole) == ["1", "3"] and list(rest) == ["3"] and rest["3"].mean == whole["3"].mean


class Averaged(nn.Module):
    """A weight that is the mean of two, written in several ways."""

    def __init__(self, mean: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.below = nn.Linear(5, 6)
        self.one, self.other = nn.Parameter(torch.randn(3, 6)), nn.Parameter(torch.randn(3, 6))
        self.mean = mean

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.below(x).tanh(), self.mean(self.one, self.other))


def test_a_mean_of_weights_is_exchanged_however_it_is_written() -> None:
    def halves(one: Tensor, other: Tensor) -> Tensor:
        return (one + other) * 0.5

    def divided(one: Tensor, other: Tensor) -> Tensor:
        return (one + other) / 2

    found = []
    for mean in (halves, divided):
        model = Averaged(mean)
        with dfa.FeedbackAlignment(model, seed=0) as rule:
            rule.backward(model(inputs()).square().mean())
        found.append(gradients(model))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_a_quotient_of_weights_is_refused() -> None:
    model = Averaged(lambda one, other: one / other)
    with dfa.FeedbackAlignment(model) as rule, pytest.raises(dfa.PointError):
        rule.backward(model(inputs()).square().mean())


@pytest.mark.parametrize("name", ["fa", "sign_symmetry", "kolen_pollack"])
def test_weights_without_numbers_to_exchange(name: str) -> None:
    model = perceptron()
    model.nothing = nn.Parameter(torch.zeros(0, 4))
    with dfa.RULES.build(name, model) as rule:
        rule.backward(model(inputs()).square().mean())
    model.whole = nn.Parameter(torch.ones(2, 2, dtype=torch.int8), requires_grad=False)
    with pytest.raises(dfa.PointError, match="'whole' holds whole numbers"):
        dfa.RULES.build(name, model)


@pytest.mark.parametrize("number", [-1, 2])
def test_processes_that_share_a_pass_have_numbers_below_how_many_they_are(number: int) -> None:
    with pytest.raises(dfa.PointError, match="from 0 to 1"):
        BackwardShare(dfa.DirectFeedbackAlignment(perceptron(), ["1", "3"]), number, 2)


def test_a_rule_whose_backward_passes_are_shared_has_none_of_its_own() -> None:
    model = perceptron()
    rule = dfa.DirectFeedbackAlignment(model, ["1", "3"])
    share = BackwardShare(rule, 0, 1)
    with pytest.raises(dfa.PointError, match=r"call BackwardShare\.backward"):
        rule.backward(model(inputs()).square().mean())
    assert gradients(model) == [None] * 6
    rule.discard()
    share.backward(model(inputs()).square().mean())
    assert None not in gradients(model)


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("name", ["shallow", "window"])
def test_a_graph_compiled_before_the_rule_is_refused_after_a_description_too(name: str) -> None:
    model = perceptron()
    compiled = torch.compile(model, backend="eager")
    compiled(inputs()).square().mean().backward()
    with dfa.RULES.build(name, model, ["1", "3"]) as rule:
        dfa.explain(rule, lambda: model(inputs()).square().mean())
        with pytest.raises(dfa.PointError, match="never reached"):
            rule.backward(compiled(inputs()).square().mean())
