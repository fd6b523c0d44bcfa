"""memory="recompute": the gradients of the ordinary mode, from segments that are run again one at a time."""

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import dfa
from dfa.base.direct import Memory
from dfa.hooks.points import Point
from dfa.hooks.segment_records import SegmentedRecord
from tests.dfa.chains import Chain
from tests.dfa.reference import as_array, assert_close, assert_same, gradients, only_matrix, softmax_error
from tests.dfa.steps import Batch, step


class Doubling(nn.Module):
    """Writes into what a segment put out before the next one reads it."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks, self.head = nn.ModuleList(nn.Linear(5, 5) for _ in range(3)), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
            x.mul_(2)
        return self.head(x)


def train(
    build: Callable[[], nn.Module], batch: Batch, steps: int = 2, **options: Any
) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
    """Gradients of the last step, state of the model and of the generator after some steps of SGD."""
    torch.manual_seed(3)
    model = build().double()
    rule = dfa.DirectFeedbackAlignment(model, **options)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(steps):
        found = step(rule, model, batch)
        optimizer.step()
    rule.close()
    return found, model.state_dict(), torch.get_rng_state()


CASES: dict[str, tuple[Callable[[], nn.Module], dict[str, Any]]] = {
    "blocks": (Chain, {"points": "blocks.*"}),
    "inner points": (Chain, {"points": ["blocks.*.act", "blocks.*.end"], "segments": "blocks.*"}),
    "error at the last block": (Chain, {"points": "blocks.*", "error_at": "blocks.3"}),
    "error at the head": (Chain, {"points": "blocks.*", "error_at": "head"}),
    "side input": (lambda: Chain(skip=True), {"points": "blocks.*"}),
    "input with gradient": (lambda: Chain(scaled=True), {"points": "blocks.*"}),
    "a matrix per point": (Chain, {"points": "blocks.*", "sharing": "per_point"}),
    "points that are no segments of use": (Chain, {"points": ["blocks.*.act", "blocks.*.end"]}),
    "written to in between": (Doubling, {"points": "blocks.*"}),
    "silent": (Chain, {"points": "blocks.*", "silent": "embed"}),
    "noise": (Chain, {"points": "blocks.*", "codec": "noise:0.5"}),
    "noise, a matrix per point": (Chain, {"points": "blocks.*", "codec": "noise:0.5", "sharing": "per_point"}),
}


@pytest.mark.parametrize("parallel", [1, 3])
@pytest.mark.parametrize("case", CASES)
def test_same_steps_as_the_ordinary_mode(case: str, parallel: int, batch: Batch) -> None:
    build, options = CASES[case]
    ordinary = {key: value for key, value in options.items() if key != "segments"}
    found, state, random = train(build, batch, steps=3, memory="recompute", parallel=parallel, **options)
    expected, expected_state, expected_random = train(build, batch, steps=3, **ordinary)
    assert_same(found, expected, tolerance=1e-12)
    for name, value in state.items():  # batch norm's statistics among them, which must not be updated twice
        torch.testing.assert_close(value, expected_state[name], rtol=1e-12, atol=1e-14, msg=name)
    assert torch.equal(random, expected_random)


def test_sequential_model(batch: Batch) -> None:
    def build() -> nn.Module:
        hidden = [nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 8), nn.ReLU()]
        return nn.Sequential(*hidden, nn.Linear(8, 3))

    found, state, random = train(build, batch, points=["3", "5"], memory="recompute")
    expected, expected_state, expected_random = train(build, batch, points=["3", "5"])
    assert_same(found, expected, tolerance=1e-12)
    torch.testing.assert_close(state["1.running_var"], expected_state["1.running_var"])
    assert torch.equal(random, expected_random)


def test_noise_in_numpy(mlp: nn.Sequential, batch: Batch) -> None:
    """Every step draws its own numbers, the next ones of the global generator."""
    rule = dfa.DirectFeedbackAlignment(mlp, ["1"], memory="recompute", codec="noise:0.5")
    step(rule, mlp, batch)
    x, first = as_array(batch[0]), as_array(mlp[0](batch[0]))
    error = softmax_error(as_array(mlp(batch[0])), batch[1].numpy())
    torch.manual_seed(11)
    drawn = [as_array(torch.randn(7, 3, dtype=torch.double)) for _ in range(3)]
    torch.manual_seed(11)
    for numbers in drawn:
        coded = error + 0.5 * np.sqrt((error**2).mean()) * numbers
        signal = coded @ as_array(only_matrix(rule)) * (first > 0)
        assert_close(step(rule, mlp, batch)["0.weight"], signal.T @ x)


class ScaledSignals(dfa.DirectFeedbackAlignment):
    """Draws for every point, when its turn has come."""

    def signals(self, error_name: str, error: Tensor, points: Sequence[Point]) -> Iterator[Tensor]:
        for signal in super().signals(error_name, error, points):
            yield signal * torch.rand(())


def test_signals_that_draw_when_they_are_asked_for(batch: Batch) -> None:
    def run(memory: Memory) -> list[dict[str, Tensor]]:
        torch.manual_seed(1)
        model = Chain().double()
        rule = ScaledSignals(model, "blocks.*", memory=memory)
        return [step(rule, model, batch) for _ in range(3)]

    for found, expected in zip(run("recompute"), run("keep"), strict=True):
        assert_same(found, expected, tolerance=1e-12)


def test_signals_are_made_when_their_segment_has_come(batch: Batch) -> None:
    events: list[str] = []

    class Noting(dfa.DirectFeedbackAlignment):
        def signals(self, error_name: str, error: Tensor, points: Sequence[Point]) -> Iterator[Tensor]:
            for point, signal in zip(points, super().signals(error_name, error, points), strict=True):
                events.append(point.name)
                yield signal

    model = Chain().double()
    rule = Noting(model, "blocks.*", memory="recompute")
    losses = [cross_entropy(model(x), y) for x, y in zip(batch[0].split(4), batch[1].split(4), strict=True)]
    for block in model.blocks:
        block.register_forward_hook(lambda *_: events.append("run"))
    rule.backward(losses[0] + losses[1])
    assert events == 2 * [event for index in range(4) for event in (f"blocks.{index}", "run")]


@pytest.mark.parametrize("codec", [None, "noise:0.5"])
def test_several_passes(codec: str | None, batch: Batch) -> None:
    def run(**options: Any) -> tuple[dict[str, Tensor], Tensor]:
        torch.manual_seed(1)
        model = Chain().double()
        rule = dfa.DirectFeedbackAlignment(model, "blocks.*", codec=codec, **options)
        chunks = [cross_entropy(model(x), y) for x, y in zip(batch[0].split(4), batch[1].split(4), strict=True)]
        spare = model(batch[0])
        rule.backward(chunks[0] + 0.5 * chunks[1])
        rule.backward(spare.square().sum())
        assert not rule.hooks.records
        return gradients(model), model.get_buffer("blocks.0.norm.running_mean")

    found, statistics = run(memory="recompute")
    expected, expected_statistics = run()
    assert_same(found, expected, tolerance=1e-12)
    assert torch.equal(statistics, expected_statistics)


def test_autocast_is_that_of_the_forward_pass() -> None:
    def run(**options: Any) -> dict[str, Tensor]:
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(5, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 3))
        x, rule = torch.randn(9, 5), dfa.DirectFeedbackAlignment(model, ["1", "3"], **options)
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(x).float().square().mean()
        rule.backward(loss)
        return gradients(model)

    assert_same(run(memory="recompute"), run(), tolerance=0)


def test_only_inputs_that_no_segment_gives_are_kept(batch: Batch) -> None:
    model = Chain(skip=True).double()
    rule = dfa.DirectFeedbackAlignment(model, "blocks.*", memory="recompute")
    output = model(batch[0])  # the record goes with it
    (record,) = rule.hooks.records
    assert isinstance(record, SegmentedRecord)
    assert [len(call.versions) for call in record.calls] == [1, 0, 1, 0]
    assert all(point.activation.is_meta for point in record.points)
    assert output.requires_grad


@pytest.mark.parametrize("shares", [False, True])
def test_optimiser_step_fused_into_the_backward(shares: bool, batch: Batch) -> None:
    """Every parameter steps once, on the same gradient, and those of the segments keep none."""

    def build(memory: Memory, **options: Any) -> tuple[Chain, dfa.DirectFeedbackAlignment]:
        torch.manual_seed(2)
        model = Chain().double()
        if shares:
            shared = model.blocks[0].mix  # used by two segments: complete only after the second
            model.blocks[2].mix = shared
        return model, dfa.DirectFeedbackAlignment(model, "blocks.*", memory=memory, **options)

    model, rule = build("recompute", parallel=3)
    stepped: list[nn.Parameter] = []

    def after(parameters: list[nn.Parameter]) -> None:
        stepped.extend(parameters)
        torch.optim.SGD(parameters, lr=0.1).step()
        for parameter in parameters:
            parameter.grad = None

    rule.after_segment = after
    step(rule, model, batch)
    assert len(stepped) == len(set(stepped)) == len(list(model.blocks.parameters()))
    assert {name.split(".")[0] for name in gradients(model)} == {"embed", "head"}
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    ordinary, rule = build("keep")
    step(rule, ordinary, batch)
    torch.optim.SGD(ordinary.parameters(), lr=0.1).step()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, ordinary.state_dict()[name], rtol=1e-12, atol=1e-14)


def test_alignment_evaluation_and_pause_are_ordinary(batch: Batch) -> None:
    def measure(**options: Any) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        torch.manual_seed(1)
        model = Chain().double()
        rule = dfa.DirectFeedbackAlignment(model, "blocks.*", **options)
        aligned = dfa.measure_alignment(rule, lambda: cross_entropy(model(batch[0]), batch[1]))
        with torch.no_grad():
            output = model(batch[0])
        assert not rule.hooks.records
        with rule.paused():
            model(batch[0]).sum().backward()
        return aligned["blocks.0"].cosines, output, gradients(model)

    found, expected = measure(memory="recompute"), measure()
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])
    assert_same(found[2], expected[2], tolerance=0)


def test_exception_inside_a_segment_leaves_nothing_behind(batch: Batch) -> None:
    model = Chain().double()
    rule = dfa.DirectFeedbackAlignment(model, "blocks.*", memory="recompute")
    expected = step(rule, copy_without_dropout(model), batch)
    end = model.get_submodule("blocks.2.end")
    for failure in (RuntimeError, KeyboardInterrupt):

        def fail(*_: object, failure: type[BaseException] = failure) -> None:
            raise failure

        handle = end.register_forward_hook(fail)
        with pytest.raises(failure):
            model(batch[0])
        handle.remove()
        assert torch.is_grad_enabled() or failure is KeyboardInterrupt
    assert_same(step(rule, model, batch), expected, tolerance=1e-12)
    assert torch.is_grad_enabled()


def copy_without_dropout(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


def test_close_restores_the_model(batch: Batch) -> None:
    model = Chain().double()
    rule = dfa.DirectFeedbackAlignment(model, "blocks.*", memory="recompute")
    step(rule, model, batch)
    rule.close()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert copy.deepcopy(model)(batch[0]).requires_grad
