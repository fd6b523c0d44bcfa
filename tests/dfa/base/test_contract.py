"""What distinguishes bp, dfa and shallow, and where gradient may and may not flow."""

import copy
import gc

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import dfa
from dfa.feedback.matrices import Sharing
from tests.dfa.reference import assert_same, backpropagated, gradients
from tests.dfa.steps import Batch, step

BUILT_IN = [name for name in dfa.RULES if dfa.RULES[name].__module__.startswith("dfa.")]  # no plug-in of other tests
EXACT_ABOVE = [name for name in BUILT_IN if not issubclass(dfa.RULES[name], dfa.SequentialRule)]
"""Rules under which what lies above the points learns from the true error."""


def test_bp_is_autograd_bit_for_bit(mlp: nn.Sequential, batch: Batch) -> None:
    expected = backpropagated(mlp, lambda: cross_entropy(mlp(batch[0]), batch[1]))
    assert_same(step(dfa.Backpropagation(mlp, ["1", "3"]), mlp, batch), expected, tolerance=0)


def test_above_the_topmost_point_all_rules_agree(mlp: nn.Sequential, batch: Batch) -> None:
    expected = backpropagated(mlp, lambda: cross_entropy(mlp(batch[0]), batch[1]))
    for name in EXACT_ABOVE:
        rule = dfa.RULES.build(name, mlp, ["1", "3"])
        found = step(rule, mlp, batch)
        assert torch.equal(found["4.weight"], expected["4.weight"])
        assert torch.equal(found["4.bias"], expected["4.bias"])
        rule.close()


def test_shallow_leaves_the_rest_untouched(mlp: nn.Sequential, batch: Batch) -> None:
    """No `.grad`, so neither momentum nor weight decay moves what lies below."""
    before = copy.deepcopy(mlp.state_dict())
    rule = dfa.Shallow(mlp, ["1", "3"])
    optimizer = torch.optim.SGD(mlp.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        rule.backward(cross_entropy(mlp(batch[0]), batch[1]))
        assert set(gradients(mlp)) == {"4.weight", "4.bias"}
        optimizer.step()
    after = mlp.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"4.weight", "4.bias"}


def test_upstream_learns_from_the_point_alone(mlp: nn.Sequential, batch: Batch) -> None:
    rule = dfa.DirectFeedbackAlignment(mlp, ["1", "3"])
    once = step(rule, mlp, batch)
    (matrix,) = rule.feedback.drawn.values()
    drawn = matrix.clone()
    matrix.mul_(-2)
    doubled = step(rule, mlp, batch)
    for name in ("0.weight", "0.bias", "2.weight", "2.bias"):
        assert once[name].abs().max() > 1e-4
        torch.testing.assert_close(doubled[name], -2 * once[name])
    matrix.zero_()
    nothing = step(rule, mlp, batch)
    assert all(nothing[name].abs().max() == 0 for name in ("0.weight", "0.bias", "2.weight", "2.bias"))
    assert torch.equal(nothing["4.weight"], once["4.weight"])
    # columns beyond the sixth serve the first point only
    matrix.copy_(drawn)
    matrix[:, 6:] = 0
    partial = step(rule, mlp, batch)
    assert torch.equal(partial["2.weight"], once["2.weight"])
    assert not torch.equal(partial["0.weight"], once["0.weight"])


def test_no_gradient_crosses_a_point(mlp: nn.Sequential, batch: Batch) -> None:
    """What lies above a point does not matter to what lies below, except through the error."""
    rule = dfa.DirectFeedbackAlignment(mlp, ["1", "3"], error_at="4")
    before = step(rule, mlp, batch)
    with torch.no_grad():  # the same function, with hidden units of the second layer permuted
        order = torch.tensor([3, 1, 5, 0, 2, 4])
        for parameter in mlp[2].parameters():
            parameter.copy_(parameter[order])
        above = mlp.get_parameter("4.weight")
        above.copy_(above[:, order])
    after = step(rule, mlp, batch)
    torch.testing.assert_close(after["0.weight"], before["0.weight"])
    assert not torch.allclose(after["2.weight"], before["2.weight"][order])


def test_scaled_loss_scales_every_gradient(mlp: nn.Sequential, batch: Batch) -> None:
    rule = dfa.DirectFeedbackAlignment(mlp, ["1", "3"])
    plain, scaled = step(rule, mlp, batch), step(rule, mlp, batch, factor=1024.0)
    assert_same({name: gradient / 1024 for name, gradient in scaled.items()}, plain, tolerance=1e-12)


def test_silent_modules_are_cut_and_get_no_signal(batch: Batch) -> None:
    """AFN in its released form: the embedding output is cut and never trains."""
    model = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    for name in ("dfa", "shallow"):
        rule = dfa.RULES.build(name, model, "2", silent="0")
        found = set(step(rule, model, batch))
        assert found == {"3.weight", "3.bias"} | ({"1.weight", "1.bias"} if name == "dfa" else set())
        rule.close()


@pytest.mark.parametrize("name", BUILT_IN)
def test_close_restores_the_model(name: str, mlp: nn.Sequential, batch: Batch) -> None:
    expected = backpropagated(mlp, lambda: cross_entropy(mlp(batch[0]), batch[1]))
    options = {"decay": 0.0} if name == "kolen_pollack" else {}  # or the weights would not be what they were
    rule = dfa.RULES.build(name, mlp, ["1", "3"], **options)
    step(rule, mlp, batch)
    mlp(batch[0])
    rule.close()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in mlp.modules())
    assert_same(backpropagated(mlp, lambda: cross_entropy(mlp(batch[0]), batch[1])), expected, tolerance=0)


def test_forward_values_are_those_of_the_plain_model(mlp: nn.Sequential, batch: Batch) -> None:
    expected = mlp(batch[0]).detach()
    for name in BUILT_IN:
        rule = dfa.RULES.build(name, mlp, ["1", "3"])
        assert torch.equal(mlp(batch[0]).detach(), expected)
        rule.close()


def test_rules_that_need_whole_batches() -> None:
    assert {name for name in BUILT_IN if dfa.RULES[name].whole_batches} == {"drtp"}


def test_own_module_in_ten_lines() -> None:
    """The README's shortest example."""
    script = """
import torch, dfa
from tests.dfa.steps import Batch, step
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two, self.out = torch.nn.Linear(20, 64), torch.nn.Linear(64, 64), torch.nn.Linear(64, 4)
        self.act1, self.act2 = torch.nn.Tanh(), torch.nn.Tanh()
    def forward(self, x):
        return self.out(self.act2(self.two(self.act1(self.one(x)))))
model, x = Net(), torch.randn(256, 20)
y, optimizer = x[:, :4].argmax(dim=1), torch.optim.Adam(model.parameters(), lr=1e-3)
rule = dfa.DirectFeedbackAlignment(model, points=["act1", "act2"])
for step in range(150):
    optimizer.zero_grad()
    loss = torch.nn.functional.cross_entropy(model(x), y)
    rule.backward(loss)
    optimizer.step()
    first = loss.detach() if step == 0 else first
"""
    found: dict[str, Tensor] = {}
    exec(script, found)
    assert found["loss"].item() < 0.5 * found["first"].item()


@pytest.mark.parametrize("sharing", ["shared", "per_point"])
def test_steps_leave_no_tensor_behind(mlp: nn.Sequential, sharing: Sharing) -> None:
    rule = dfa.DirectFeedbackAlignment(mlp, points=["1", "3"], error_at="", sharing=sharing)

    def tensors_after_steps(count: int) -> int:
        for _ in range(count):
            rule.backward(mlp(torch.ones(4, 5, dtype=torch.double)).square().sum())
        return sum(type(thing) is torch.Tensor for thing in gc.get_objects())

    gc.collect()
    gc.disable()  # what waits for the collector occupies memory until then
    try:
        assert tensors_after_steps(2) == tensors_after_steps(5)
    finally:
        gc.enable()
