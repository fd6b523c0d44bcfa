"""Calls of parts of a model, of the model within itself and from several threads: whose error a point learns from."""

import gc
import threading
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

import dfa
from tests.dfa.reference import assert_same, backpropagated, only_matrix
from tests.dfa.refusals import one_step
from tests.dfa.steps import Batch, step


class Parted(nn.Module):
    """A trunk with a point, and a head; `between` is what else happens in a forward pass."""

    def __init__(self, between: Callable[["Parted", Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.trunk, self.head = nn.Sequential(nn.Linear(5, 8), nn.Tanh()), nn.Linear(8, 3)
        self._between = between

    def forward(self, x: Tensor, plain: bool = False, features: bool = False) -> Tensor:
        hidden = x if features else self.trunk(x)
        if self._between is not None and not plain:
            hidden = hidden + self._between(self, x)
        logits: Tensor = self.head(hidden)
        return logits


@pytest.fixture
def model() -> Parted:
    torch.manual_seed(0)
    return Parted().double()


@pytest.fixture
def other() -> Batch:
    return torch.randn(7, 5, dtype=torch.double), torch.tensor([2, 0, 1, 1, 0, 2, 2])


def by_hand(
    model: Parted, passes: list[tuple[Tensor, Callable[[Tensor], Tensor]]], matrix: Tensor
) -> dict[str, Tensor]:
    """DFA's gradients by autograd, for passes that each have an input and a loss of the trunk's output."""
    found: dict[str, Tensor] = {}
    for x, loss_of in passes:
        hidden = model.trunk(x)
        above = hidden.detach().requires_grad_()
        logits: list[Tensor] = []
        handle = model.head.register_forward_hook(lambda *given: logits.append(given[2]))  # noqa: B023
        loss = loss_of(above)
        handle.remove()
        errors = torch.autograd.grad(loss, logits, retain_graph=True)
        parts = {f"head.{name}": weight for name, weight in model.head.named_parameters()}
        signals = [(loss, None, parts)]
        parts = {f"trunk.{name}": weight for name, weight in model.trunk.named_parameters()}
        signals.append((hidden, sum(error @ matrix for error in errors), parts))  # type: ignore[arg-type]
        for root, signal, weights in signals:
            gradients = torch.autograd.grad(root, list(weights.values()), signal)
            for name, gradient in zip(weights, gradients, strict=True):
                found[name] = found.get(name, torch.zeros(())) + gradient
    return found


def test_features_that_were_looked_at(model: Parted, batch: Batch, other: Batch) -> None:
    """They belong to no error, whatever error comes next."""
    rule = dfa.DirectFeedbackAlignment(model, "trunk", "head")

    def loss() -> Tensor:
        model.trunk(other[0])
        return cross_entropy(model.head(model.trunk(batch[0])), batch[1])

    found, matrix = one_step(rule, model, loss), only_matrix(rule)
    assert_same(step(rule, model, batch), found)
    rule.close()
    expected = by_hand(model, [(batch[0], lambda h: cross_entropy(model.head(h), batch[1]))], matrix)
    assert_same(found, expected, tolerance=1e-12)


@pytest.mark.parametrize("saving", [False, True], ids=["", "checkpoints"])
def test_parts_called_in_turn(saving: bool, model: Parted, batch: Batch, other: Batch) -> None:
    """Two trunks before their heads, and two heads of one trunk: every error goes to the points it depends on."""
    rule = dfa.DirectFeedbackAlignment(model, "trunk", "head")

    def trunk(x: Tensor) -> Any:
        return checkpoint(model.trunk, x, use_reentrant=False) if saving else model.trunk(x)

    def loss() -> Tensor:
        first, second = trunk(batch[0]), trunk(other[0])
        total = cross_entropy(model.head(second), other[1]) + cross_entropy(model.head(first), batch[1])
        return total + model.head(2 * first).square().mean()

    found, matrix = one_step(rule, model, loss), only_matrix(rule)
    rule.close()

    def of_first(hidden: Tensor) -> Tensor:
        return cross_entropy(model.head(hidden), batch[1]) + model.head(2 * hidden).square().mean()

    passes = [(batch[0], of_first), (other[0], lambda h: cross_entropy(model.head(h), other[1]))]
    assert_same(found, by_hand(model, passes, matrix), tolerance=1e-12)


@pytest.mark.parametrize("name", ["dfa", "identity", "drtp", "dkp", "low_rank", "highway"])
@pytest.mark.parametrize("way", ["parts", "forward"])
@pytest.mark.filterwarnings("ignore:.*no point has the shape:UserWarning")
def test_every_rule_trains_parts_as_it_trains_the_model(name: str, way: str, batch: Batch) -> None:
    def train(whole: bool) -> dict[str, Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3)).double()
        rule = dfa.RULES.build(name, model, ["1", "3"], "4")

        def loss() -> Tensor:
            if whole or way == "forward":
                return cross_entropy((model if whole else model.forward)(batch[0]), batch[1])
            logits = batch[0]
            for layer in model:
                logits = layer(logits)
            return cross_entropy(logits, batch[1])

        return one_step(rule, model, loss)

    assert_same(train(whole=False), train(whole=True), tolerance=1e-12)


def test_features_that_enter_a_call_of_the_model(model: Parted, batch: Batch) -> None:
    rule = dfa.DirectFeedbackAlignment(model, "trunk", "head")
    expected = step(rule, model, batch)
    found = one_step(rule, model, lambda: cross_entropy(model(model.trunk(batch[0]), features=True), batch[1]))
    assert_same(found, expected, tolerance=1e-12)


def test_head_on_features_that_were_kept(model: Parted, batch: Batch) -> None:
    """It learns from the true error, and there is nothing to send."""
    for name in ("dfa", "dkp"):
        with dfa.RULES.build(name, model, "trunk", "head") as rule:
            features = model.trunk(batch[0]).detach()
            found = one_step(rule, model, lambda: cross_entropy(model.head(features), batch[1]))  # noqa: B023
        expected = backpropagated(model, lambda: cross_entropy(model.head(features), batch[1]))  # noqa: B023
        assert_same(found, expected, tolerance=0)


def test_alignment_of_parts(model: Parted, batch: Batch, other: Batch) -> None:
    rule = dfa.DirectFeedbackAlignment(model, "trunk", "head")
    expected = dfa.measure_alignment(rule, lambda: cross_entropy(model(batch[0]), batch[1]))

    def loss() -> Tensor:
        model.trunk(other[0])
        return cross_entropy(model.head(model.trunk(batch[0])), batch[1])

    torch.testing.assert_close(dfa.measure_alignment(rule, loss)["trunk"].cosines, expected["trunk"].cosines)


def test_points_of_parts_go_with_their_graph(model: Parted, batch: Batch) -> None:
    rule = dfa.DirectFeedbackAlignment(model, "trunk", "head")
    seen: list[weakref.ref[Tensor]] = []
    model.trunk[1].register_forward_hook(lambda *given: seen.append(weakref.ref(given[2])))
    for _ in range(3):
        rule.backward(cross_entropy(model.head(model.trunk(batch[0])), batch[1]))
        model.trunk(batch[0])
    gc.collect()
    assert not any(reference() is not None for reference in seen)


def test_heads_of_one_part_with_an_error_each_are_refused(model: Parted, batch: Batch) -> None:
    model.aside = nn.Linear(8, 3).double()
    rule = dfa.DirectFeedbackAlignment(model, "trunk", ["head", "aside"])
    hidden = model.trunk(batch[0])
    model.head(hidden)
    with pytest.raises(dfa.PointError, match="'aside' has no feedback point of its own"):
        model.aside(hidden)
    rule.close()


WHOLE: dict[str, tuple[str, Mapping[str, Any]]] = {
    "recompute": ("dfa", {"memory": "recompute"}),
    "fdfa": ("fdfa", {}),
    "grape": ("grape", {}),
    "norms": ("identity", {"norms": "norm"}),
    "norms in waves": ("highway", {"norms": "norm"}),
}


@pytest.mark.parametrize("key", WHOLE)
@pytest.mark.parametrize("way", ["parts", "forward"])
def test_what_parts_do_not_go_with(key: str, way: str, batch: Batch) -> None:
    model = nn.Sequential(nn.Linear(5, 3), nn.Sequential()).double()
    model[1].add_module("norm", nn.LayerNorm(3).double())
    name, options = WHOLE[key]
    norms = {"norms": "1.norm"} if "norms" in options else dict(options)
    rule = dfa.RULES.build(name, model, "0", "1", **norms)
    with pytest.raises(dfa.PointError, match=r"point '0' was run outside of a call .*: call the model itself"):
        rule.backward(
            cross_entropy(model[1](model[0](batch[0])) if way == "parts" else model.forward(batch[0]), batch[1])
        )
    one_step(rule, model, lambda: cross_entropy(model(batch[0]), batch[1]))


def no_gradient(model: Parted, x: Tensor) -> Tensor:
    """Self-conditioning: an estimate of the model's own, without gradient."""
    with torch.no_grad():
        return model(x, plain=True).mean()


@pytest.mark.parametrize("name", ["dfa", "dkp", "highway", "calibrate", "recompute"])
def test_model_that_calls_itself_without_gradient(name: str, batch: Batch) -> None:
    torch.manual_seed(0)
    model = Parted(no_gradient).double()
    with torch.no_grad():
        estimate = no_gradient(model, batch[0])
    options = {"every": 2} if name == "calibrate" else {"memory": "recompute"} if name == "recompute" else {}
    rule = dfa.RULES.build("dfa" if name == "recompute" else name, model, "trunk", **options)
    if name == "calibrate":
        rule.backward(cross_entropy(model(batch[0]), batch[1]))  # an exact batch
    source = getattr(rule, "inner", rule)
    found = one_step(rule, model, lambda: cross_entropy(model(batch[0]), batch[1]))
    matrix = next(iter(source.feedback.drawn.values())).double()
    rule.close()
    if name == "dkp":  # has learned since
        assert found.keys() == dict(model.named_parameters()).keys()
    elif name == "highway":  # one wave and one point
        assert_same(found, backpropagated(model, lambda: cross_entropy(model(batch[0]), batch[1])), tolerance=1e-12)
    else:
        passes = [(batch[0], lambda h: cross_entropy(model.head(h + estimate), batch[1]))]
        assert_same(found, by_hand(model, passes, matrix), tolerance=1e-12)


def test_model_that_calls_itself_with_gradient(batch: Batch) -> None:
    """Each call has its own points and its own error."""
    torch.manual_seed(0)
    model = Parted(lambda model, x: model(x, plain=True).mean()).double()
    rule = dfa.DirectFeedbackAlignment(model, "trunk")
    found, matrix = step(rule, model, batch), only_matrix(rule)
    rule.close()
    inner, hidden = model(batch[0], plain=True), model.trunk(batch[0])
    logits = model.head(hidden.detach() + inner.mean())
    e_outer, e_inner = torch.autograd.grad(cross_entropy(logits, batch[1]), [logits, inner])
    weights = list(model.trunk.parameters())
    expected = torch.autograd.grad(model.trunk(batch[0]), weights, (e_outer + e_inner) @ matrix)
    for gradient, name in zip(expected, ("trunk.0.weight", "trunk.0.bias"), strict=True):
        torch.testing.assert_close(found[name], gradient)


@pytest.mark.parametrize(("name", "options"), [("dfa", {"memory": "recompute"}), ("fdfa", {}), ("grape", {})])
def test_model_that_calls_itself_with_gradient_is_refused(name: str, options: dict[str, Any], batch: Batch) -> None:
    model = Parted(lambda model, x: model(x, plain=True).mean()).double()
    rule = dfa.RULES.build(name, model, "trunk", **options)
    with pytest.raises(dfa.PointError, match="calls itself"):
        model(batch[0])
    one_step(rule, model, lambda: cross_entropy(model(batch[0], plain=True), batch[1]))


@pytest.mark.parametrize("name", ["fdfa", "grape"])
def test_forward_mode_goes_on_after_a_call_without_gradient(name: str, batch: Batch) -> None:
    model = Parted(no_gradient).double()
    rule = dfa.RULES.build(name, model, "trunk")
    step(rule, model, batch)
    before = {key: matrix.clone() for key, matrix in rule.feedback.drawn.items()}
    step(rule, model, batch)
    assert before
    assert all(not torch.equal(matrix, before[key]) for key, matrix in rule.feedback.drawn.items())


class Waiting(nn.Module):
    """A layer that waits for another thread."""

    wait: Callable[[], None] = staticmethod(lambda: None)

    def forward(self, x: Tensor) -> Tensor:
        self.wait()
        return x


def test_two_threads_in_one_model(batch: Batch, other: Batch) -> None:
    """The second is refused, one without gradient is not, and the first goes on."""
    waiting = Waiting()
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), waiting, nn.Linear(8, 3)).double()
    rule = dfa.DirectFeedbackAlignment(model, "1")
    expected = step(rule, model, batch)
    inside, go_on, losses = threading.Event(), threading.Event(), []

    def wait() -> None:
        inside.set()
        assert go_on.wait(20)

    waiting.wait = wait
    thread = threading.Thread(target=lambda: losses.append(cross_entropy(model(batch[0]), batch[1])))
    thread.start()
    assert inside.wait(20)
    waiting.wait = lambda: None
    try:
        with pytest.raises(dfa.PointError, match="two threads"):
            model(other[0])
        with torch.no_grad():
            model(other[0])
    finally:
        go_on.set()
        thread.join()
    assert_same(one_step(rule, model, lambda: losses[0]), expected, tolerance=1e-12)
    assert_same(step(rule, model, batch), expected, tolerance=1e-12)  # the refused call has left nothing
