"""memory="recompute": what cannot be run again is reported, before training where it can be seen."""

import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import parametrizations, parametrize

import dfa
from tests.dfa.chains import Chain
from tests.dfa.reference import assert_same
from tests.dfa.steps import Batch, step


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"points": "blocks.*", "memory": "little"}, "unknown memory 'little'; known: keep, recompute"),
        ({"points": "blocks.*", "segments": "blocks.*"}, "segments are for memory='recompute'"),
        ({"points": "blocks.*", "parallel": 2}, "parallel must be 1, or above with memory='recompute'; got 2"),
        ({"points": "blocks.*", "memory": "recompute", "parallel": 0}, "parallel must be at least 1, got 0"),
        ({"points": "blocks.*", "memory": "recompute", "parallel": 1.5}, "parallel must be a whole number, got 1.5"),
        ({"points": ["blocks.*", "embed"], "segments": "blocks.*", "memory": "recompute"}, "in no segment: embed"),
        ({"points": "blocks.*", "segments": ["blocks.*", "embed"], "memory": "recompute"}, "'embed' holds no feedback"),
        ({"points": "blocks.*", "error_at": "blocks.3.act", "memory": "recompute"}, "'blocks.3.act' lies inside"),
        ({"points": "", "memory": "recompute"}, "the whole model cannot be a segment"),
        ({"points": "blocks.*", "segments": "blocks[", "memory": "recompute"}, r"pattern 'blocks\[' matches no module"),
    ],
)
def test_what_cannot_be_run_again_is_told_at_once(options: dict[str, Any], message: str) -> None:
    model = Chain()
    with pytest.raises((dfa.PointError, dfa.FeedbackError), match=message):
        dfa.DirectFeedbackAlignment(model, **options)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_compiled_as_a_whole() -> None:
    compiled = torch.compile(Chain())
    assert isinstance(compiled, nn.Module)
    with pytest.raises(dfa.PointError, match="compile the segments"):
        dfa.DirectFeedbackAlignment(compiled, "blocks.*", memory="recompute")


def test_segment_that_lets_gradient_out(batch: Batch) -> None:
    model = Chain().double()
    rule = dfa.DirectFeedbackAlignment(model, "blocks.*.act", segments="blocks.*", memory="recompute")
    with pytest.raises(dfa.PointError, match=r"segment 'blocks.0': its output must be a feedback point"):
        step(rule, model, batch)


def test_point_that_runs_outside_of_its_segment(batch: Batch) -> None:
    class Shortcut(Chain):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.blocks[0].get_submodule("back")(self.embed(x).repeat(1, 2)))

    model = Shortcut().double()
    dfa.DirectFeedbackAlignment(model, "blocks.*.back", segments="blocks.*", memory="recompute")
    with pytest.raises(dfa.PointError, match=r"'blocks.0.back' was run outside of its segment"):
        model(batch[0])


def test_input_that_was_overwritten(batch: Batch) -> None:
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    rule = dfa.DirectFeedbackAlignment(model, "1", memory="recompute")
    loss = cross_entropy(model(batch[0]), batch[1])
    batch[0].zero_()
    with pytest.raises(dfa.PointError, match="segment '1': an input has been written to"):
        rule.backward(loss)


def test_segment_that_runs_otherwise_the_second_time(batch: Batch) -> None:
    class Fickle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.calls = nn.Linear(5, 5), nn.Linear(5, 5), 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return self.one(x) if self.calls == 1 else self.two(x)

    model = nn.ModuleDict({"body": Fickle(), "head": nn.Linear(5, 3)}).double()
    model.forward = lambda x: model["head"](model["body"](x))
    rule = dfa.DirectFeedbackAlignment(model, ["body.one", "body.two"], segments="body", memory="recompute")
    rule.hooks._cuts.note("body.two")
    with pytest.raises(dfa.PointError, match="did not reach the same feedback points"):
        step(rule, model, batch)


class Balanced(nn.Module):
    """Has a loss of its own, in training alone."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.gate, self.balance = nn.Linear(5, 5), nn.Linear(5, 2), torch.zeros(())

    def forward(self, x: Tensor) -> Tensor:
        shares = self.gate(x).softmax(-1)
        if self.training:
            self.balance = shares.mean(0).square().sum()
        return x + torch.tanh(self.linear(x)) * shares[:, :1]


def test_a_loss_of_a_block_that_is_there_in_training_alone(batch: Batch) -> None:
    model = nn.Sequential(nn.Linear(5, 5), Balanced(), nn.Linear(5, 3)).double()
    with dfa.DirectFeedbackAlignment(model, ["1"], memory="recompute") as rule:
        step(rule, model.eval(), batch)
        with pytest.raises(dfa.PointError, match=r"segment '1': a tensor of shape .* is kept beyond the segment"):
            model.train()(batch[0])


def test_weights_that_are_cached_from_the_second_step_on(batch: Batch) -> None:
    normed = nn.Sequential(parametrizations.weight_norm(nn.Linear(5, 5)), nn.Tanh())
    model = nn.Sequential(nn.Linear(5, 5), normed, nn.Linear(5, 3)).double()
    with dfa.DirectFeedbackAlignment(model, ["1"], memory="recompute") as rule:
        step(rule, model, batch)
        with parametrize.cached(), pytest.raises(dfa.PointError, match="do without the cache"):
            model(batch[0])
        step(rule, model, batch)
        assert all(parameter.grad is not None and parameter.grad.any() for parameter in normed.parameters())


class Sharing(nn.Module):
    """A block that puts what it computes where the blocks after it find it."""

    def __init__(self, put: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.values, self.mix, self.put = nn.Linear(5, 5), nn.Linear(5, 5), put

    def forward(self, x: Tensor, shared: Any) -> Tensor:
        first = self.put(shared, self.values(x))
        return x + torch.tanh(self.mix(x + first))


class SharingBlocks(nn.Module):
    def __init__(self, make: Callable[[], Any], put: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.blocks, self.head, self.make = nn.ModuleList(Sharing(put) for _ in range(3)), nn.Linear(5, 3), make

    def forward(self, x: Tensor) -> Tensor:
        shared = self.make()
        for block in self.blocks:
            x = block(x, shared)
        scores: Tensor = self.head(x)
        return scores


def _appended(shared: list[Tensor], values: Tensor) -> Tensor:
    shared.append(values)
    return shared[0]


def _kept(shared: SimpleNamespace, values: Tensor) -> Tensor:
    shared.first = getattr(shared, "first", values)
    return shared.first


@pytest.mark.parametrize(
    ("make", "put"),
    [(dict, lambda shared, values: shared.setdefault("first", values)), (list, _appended), (SimpleNamespace, _kept)],
    ids=["dict", "list", "object"],
)
def test_an_argument_that_keeps_what_a_segment_computes(make: Any, put: Any, batch: Batch) -> None:
    """Later segments would read it without a gradient."""
    model = SharingBlocks(make, put).double()
    dfa.DirectFeedbackAlignment(model, "blocks.*", memory="recompute")
    with pytest.raises(dfa.PointError, match=r"segment 'blocks.0' changes its argument 2"):
        model(batch[0])


def test_an_argument_that_keeps_constants(batch: Batch) -> None:
    """Counters and detached tensors are the same in the second run."""

    def put(shared: dict[str, Any], values: Tensor) -> Tensor:
        shared["count"] = shared.get("count", 0) + 1
        return values * float(shared["count"]) + shared.setdefault("first", values.detach())

    found = []
    for memory in ("keep", "recompute"):
        torch.manual_seed(0)
        model = SharingBlocks(dict, put).double()
        with dfa.RULES.build("dfa", model, "blocks.*", memory=memory) as rule:
            step(rule, model, batch)
            found.append(step(rule, model, batch))
    assert_same(found[1], found[0])


def test_parameters_that_are_frozen_after_the_forward_pass(batch: Batch) -> None:
    model = nn.Sequential(nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    rule = dfa.DirectFeedbackAlignment(model, "1", memory="recompute")
    model[0].requires_grad_(False)
    loss = cross_entropy(model(batch[0]), batch[1])
    model[0].requires_grad_(True)
    with pytest.raises(dfa.PointError, match="requires_grad of parameter 'weight' has changed"):
        rule.backward(loss)


class Masked(nn.Module):
    """Hands on a mask, and keeps a bias that is computed from it for the blocks after it."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(5, 5)

    def forward(self, x: Tensor, mask: Tensor, shared: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        bias = shared.setdefault("bias", 1 - mask)
        with torch.no_grad():
            shared["mean"] = self.mix(x).mean(0)
        return x + torch.tanh(self.mix(x)) * mask + bias, mask * 1


class MaskedBlocks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks, self.head = nn.ModuleList(Masked() for _ in range(2)), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        mask, shared = (torch.arange(5) % 2).to(x), dict[str, Tensor]()
        for block in self.blocks:
            x, mask = block(x, mask, shared)
        scores: Tensor = self.head(x * mask)
        return scores


def test_what_is_computed_from_constants_alone_may_be_kept_and_returned(batch: Batch) -> None:
    found = []
    for memory in ("keep", "recompute"):
        model = MaskedBlocks().double()
        with dfa.RULES.build("dfa", model, "blocks.*", memory=memory) as rule, warnings.catch_warnings():
            warnings.simplefilter("error")
            step(rule, model, batch)
            found.append(step(rule, model, batch))
    assert_same(found[1], found[0])
