"""Exact batches now and then, beside other rules."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import dfa
from dfa.registry import OptionError
from tests.dfa.reference import assert_same, backpropagated, gradients
from tests.dfa.steps import Batch, step


@pytest.mark.parametrize("every", [1, 3])
def test_exact_batches_among_others(every: int, mlp: nn.Sequential, batch: Batch) -> None:
    exact = backpropagated(mlp, lambda: cross_entropy(mlp(batch[0]), batch[1]))
    plain = dfa.DirectFeedbackAlignment(mlp, ["1", "3"], seed=2)
    direct = step(plain, mlp, batch)
    plain.close()
    rule = dfa.Calibrated(mlp, ["1", "3"], rule="dfa", every=every, seed=2)
    for index in range(7):
        assert_same(step(rule, mlp, batch), exact if index % every == 0 else direct, tolerance=1e-12)
        with torch.no_grad():
            mlp(batch[0])  # an evaluation in between
    assert rule.uses == dfa.Uses(bp_batches=1 / every, state="fixed feedback")


@pytest.mark.parametrize("inner", ["bp", "shallow", "fa"])
def test_any_rule_can_be_calibrated(inner: str, mlp: nn.Sequential, batch: Batch) -> None:
    plain = dfa.RULES.build(inner, mlp, ["1", "3"])
    expected = step(plain, mlp, batch)
    plain.close()
    exact = backpropagated(mlp, lambda: cross_entropy(mlp(batch[0]), batch[1]))
    rule = dfa.Calibrated(mlp, ["1", "3"], rule=inner, every=2)
    assert_same(step(rule, mlp, batch), exact, tolerance=1e-12)
    assert_same(step(rule, mlp, batch), expected, tolerance=1e-12)


@pytest.mark.parametrize("inner", ["dfa", "shallow", "fa"])
def test_all_backwards_of_one_batch_are_of_one_kind(inner: str, mlp: nn.Sequential, batch: Batch) -> None:
    """As of real and generated images: two forward passes, then a backward for each."""
    other = -batch[0], batch[1]
    with dfa.RULES.build(inner, mlp, ["1", "3"]) as plain:
        usual = [step(plain, mlp, part) for part in (batch, other)]
    exact = [backpropagated(mlp, lambda part=part: cross_entropy(mlp(part[0]), part[1])) for part in (batch, other)]  # type: ignore[misc]
    rule = dfa.Calibrated(mlp, ["1", "3"], rule=inner, every=3)
    for index in range(7):
        losses = [cross_entropy(mlp(part[0]), part[1]) for part in (batch, other)]
        for loss, expected in zip(losses, usual if index % 3 else exact, strict=True):
            mlp.zero_grad()
            rule.backward(loss)
            assert_same(gradients(mlp), expected, tolerance=1e-12)


@pytest.mark.parametrize("inner", ["bp", "dfa", "shallow", "fa"])
@pytest.mark.parametrize("before", [0, 1])
def test_passes_for_another_kind_of_batch_are_refused(
    before: int, inner: str, mlp: nn.Sequential, batch: Batch
) -> None:
    rule = dfa.Calibrated(mlp, ["1", "3"], rule=inner, every=2)
    for _ in range(before):
        step(rule, mlp, batch)
    early = [cross_entropy(mlp(batch[0]), batch[1]) for _ in range(2)]
    step(rule, mlp, batch)
    for loss in (early[0], early[1] + cross_entropy(mlp(batch[0]), batch[1])):
        late = mlp(batch[0])  # so that the next backward is of another batch than the early passes
        with pytest.raises(dfa.PointError, match=r"made for (an exact|another kind of) batch"):
            rule.backward(loss)
        del late


def test_parts_of_the_model_that_are_called_by_themselves(mlp: nn.Sequential, batch: Batch) -> None:
    exact = backpropagated(mlp, lambda: cross_entropy(mlp(batch[0]), batch[1]))
    trunk, head = mlp[:4], mlp[4]
    with dfa.DirectFeedbackAlignment(mlp, ["1", "3"], "4") as plain:
        usual = step(plain, mlp, batch)
    rule = dfa.Calibrated(mlp, ["1", "3"], "4", every=2)
    for expected in (exact, usual, exact):
        mlp.zero_grad()
        rule.backward(cross_entropy(head(trunk(batch[0])), batch[1]))
        assert_same(gradients(mlp), expected, tolerance=1e-12)
    with pytest.raises(dfa.PointError, match="no forward pass of the model since the last backward"):
        rule.backward(mlp.get_parameter("0.weight").sum())


def test_passes_that_belong_to_no_batch(mlp: nn.Sequential, batch: Batch) -> None:
    """In a pause inside another, and in `explain`: a loss of theirs is none of this batch."""
    rule = dfa.Calibrated(mlp, ["1", "3"], every=1)
    step(rule, mlp, batch)

    def loss() -> Tensor:
        return cross_entropy(mlp(batch[0]), batch[1])

    with rule.paused():
        with rule.paused():
            pass
        loss()
    dfa.explain(rule, loss)
    with pytest.raises(dfa.PointError, match="no forward pass of the model since the last backward"):
        rule.backward(mlp.get_parameter("0.weight").sum())


def test_calibration_resumes_in_step(mlp: nn.Sequential, batch: Batch) -> None:
    rule = dfa.Calibrated(mlp, ["1", "3"], every=3)
    for _ in range(4):
        step(rule, mlp, batch)
    state, expected = rule.state_dict(), [step(rule, mlp, batch) for _ in range(4)]
    rule.close()
    resumed = dfa.Calibrated(mlp, ["1", "3"], every=3, seed=9)
    resumed.load_state_dict(state)
    for found in expected:
        assert_same(step(resumed, mlp, batch), found, tolerance=0)


@pytest.mark.parametrize("every", [1, 3, 10, 49])
def test_share_of_exact_batches(every: int, mlp: nn.Sequential) -> None:
    shares = {}
    for name in ("bp", "dfa", "shallow"):
        with dfa.Calibrated(mlp, "1", rule=name, every=every) as rule:
            shares[name] = rule.uses.bp_batches
    assert shares == {"bp": 1.0, "dfa": 1 / every, "shallow": 1 / every}
    rule = dfa.Calibrated(mlp, "1", rule="fdfa", every=every)
    assert rule.uses.extra_forwards == pytest.approx(1 - 1 / every)


def test_calibration_refuses_what_is_impossible(mlp: nn.Sequential) -> None:
    with pytest.raises(OptionError, match="'calibrate' cannot be the other rule of itself"):
        dfa.Calibrated(mlp, rule="calibrate")
    for no_mapping in ("seed", ["seed"], 3, {3: 4}):
        with pytest.raises(OptionError, match="'calibrate': option 'options' must map names to values, got"):
            dfa.RULES.build("calibrate", mlp, options=no_mapping)
    for not_an_option in ("name", "self", "model"):
        with pytest.raises(OptionError, match="rule 'dfa'"):
            dfa.RULES.build("calibrate", mlp, options={not_an_option: "dfa"})
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in mlp.modules())
    with pytest.raises(ValueError, match="every must be at least 1"):
        dfa.Calibrated(mlp, every=0)
    with pytest.raises(KeyError, match="unknown rule 'hebb'"):
        dfa.Calibrated(mlp, rule="hebb")
