"""Rules that go backwards layer by layer through other weights than forwards."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import dfa
from tests.dfa.reference import as_array, assert_close, assert_same, backpropagated, gradients, softmax_error
from tests.dfa.steps import Batch, step

SEQUENTIAL = {
    "fa": {},
    "sign_symmetry": {"magnitude": "uniform"},
    "sign_symmetry ": {"magnitude": "fixed_random"},
    "kolen_pollack": {},
}


def with_weights_replaced(model: nn.Module, rule: dfa.SequentialRule) -> nn.Module:
    """A copy whose every weight has a double: forward values by W, signals by B."""
    twin = copy.deepcopy(model)
    twin._forward_hooks.clear()
    for name, module in list(twin.named_modules()):
        weight = f"{name}.weight"
        if weight in rule.weights:
            parent = twin.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], Doubled(module, rule.feedback_weight(weight)))
    return twin


class Doubled(nn.Module):
    """y = f(x, W) for W's gradient, f(x, B) for x's."""

    def __init__(self, module: nn.Module, feedback: Tensor) -> None:
        super().__init__()
        self.module = module
        self.other = copy.deepcopy(module).requires_grad_(False)
        self.other.get_parameter("weight").copy_(feedback)

    def forward(self, x: Tensor) -> Tensor:
        by_feedback = self.other(x)
        return self.module(x.detach()) + by_feedback - by_feedback.detach()


def networks() -> dict[str, tuple[nn.Module, Tensor]]:
    dense = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3))
    first, second = nn.Conv2d(1, 3, 3, bias=False), nn.Conv2d(3, 2, 2, stride=2, bias=False)
    convolutions = nn.Sequential(first, nn.BatchNorm2d(3), nn.ReLU(), second, nn.Tanh(), nn.Flatten(), nn.Linear(8, 3))
    return {"linear": (dense, torch.randn(7, 5)), "convolution": (convolutions, torch.randn(7, 1, 6, 6))}


@pytest.mark.parametrize("network", networks())
@pytest.mark.parametrize("key", SEQUENTIAL)
def test_signals_take_the_other_weights(key: str, network: str) -> None:
    model, x = networks()[network]
    model, x, targets = model.double(), x.double(), torch.arange(7) % 3
    rule = dfa.RULES.build(key.strip(), model, **SEQUENTIAL[key])
    assert isinstance(rule, dfa.SequentialRule) and rule.uses.sequential
    twin = with_weights_replaced(model, rule)
    cross_entropy(twin(x), targets).backward()
    expected = {name.replace(".module", ""): gradient for name, gradient in gradients(twin).items()}
    before = copy.deepcopy(model.state_dict())
    assert_same(step(rule, model, (x, targets)), expected, tolerance=1e-12)
    if key != "kolen_pollack":
        weights = dict(model.named_parameters())
        assert all(torch.equal(before[name], weight) for name, weight in weights.items())


@pytest.mark.parametrize("network", networks())
@pytest.mark.parametrize("key", SEQUENTIAL)
def test_feedback_follows_the_weights(key: str, network: str) -> None:
    """Into another type and another memory layout, after the rule was made and after it was used."""
    model, x = networks()[network]
    targets = torch.arange(7) % 3
    rule = dfa.RULES.build(key.strip(), model, **SEQUENTIAL[key])
    step(rule, model, (x, targets))
    before = {name: rule.feedback_weight(name).clone() for name in rule.weights}
    model = model.double()
    if network == "convolution":
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    twin = with_weights_replaced(model, rule)
    cross_entropy(twin(x.double()), targets).backward()
    expected = {name.replace(".module", ""): gradient for name, gradient in gradients(twin).items()}
    for name, weight in rule.weights.items():
        feedback = rule.feedback_weight(name)
        assert (feedback.dtype, feedback.stride()) == (torch.double, weight.stride())
        torch.testing.assert_close(feedback, before[name].double(), rtol=1e-6, atol=1e-7)
    assert_same(step(rule, model, (x.double(), targets)), expected, tolerance=1e-12)
    if key == "kolen_pollack":
        for name, weight in rule.weights.items():
            assert rule.feedback_weight(name).dtype == weight.dtype


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("key", SEQUENTIAL)
def test_feedback_follows_the_weights_to_a_gpu(key: str, mlp: nn.Sequential, batch: Batch) -> None:
    rule = dfa.RULES.build(key.strip(), mlp, **SEQUENTIAL[key], **({"decay": 0.0} if key == "kolen_pollack" else {}))
    expected = step(rule, mlp, batch)
    found = step(rule, mlp.cuda(), (batch[0].cuda(), batch[1].cuda()))
    assert_same({name: gradient.cpu() for name, gradient in found.items()}, expected, tolerance=1e-12)


@pytest.mark.parametrize("key", SEQUENTIAL)
def test_saved_state_keeps_the_precision_of_the_weights(key: str, mlp: nn.Sequential, batch: Batch) -> None:
    rule = dfa.RULES.build(key.strip(), mlp, **SEQUENTIAL[key])
    with torch.no_grad():
        for held in rule._stored().values():
            held.div_(3)  # what float32 does not hold
    saved = copy.deepcopy(rule.state_dict())
    rule.close()
    resumed = dfa.RULES.build(key.strip(), mlp.float(), **SEQUENTIAL[key])
    mlp.double()
    resumed.load_state_dict(saved)
    for name, tensor in resumed.state_dict().items():
        assert torch.equal(tensor, saved[name])


def test_feedback_alignment_in_numpy(mlp: nn.Sequential, batch: Batch) -> None:
    rule = dfa.FeedbackAlignment(mlp, seed=3)
    found = step(rule, mlp, batch)
    x = as_array(batch[0])
    w1, b1, w2, b2, w3, b3 = (as_array(parameter) for parameter in mlp.parameters())
    a1 = x @ w1.T + b1
    h2 = np.tanh(np.maximum(a1, 0) @ w2.T + b2)
    error = softmax_error(h2 @ w3.T + b3, batch[1].numpy())
    d2 = error @ as_array(rule.feedback_weight("4.weight")) * (1 - h2**2)
    d1 = d2 @ as_array(rule.feedback_weight("2.weight")) * (a1 > 0)
    assert_close(found["4.weight"], error.T @ h2)
    assert_close(found["2.weight"], d2.T @ np.maximum(a1, 0))
    assert_close(found["0.weight"], d1.T @ x)
    spread = rule.feedback_weight("2.weight").std() / mlp.get_parameter("2.weight").std()
    assert 0.6 < spread < 1.5
    rule.close()
    assert not torch.equal(
        rule.feedback_weight("2.weight"), dfa.FeedbackAlignment(mlp, seed=4).feedback_weight("2.weight")
    )


def test_signs_in_numpy(mlp: nn.Sequential) -> None:
    rule = dfa.SignSymmetry(mlp, magnitude="uniform")
    weight = mlp.get_parameter("2.weight")
    magnitude = np.abs(as_array(weight)).mean()
    with torch.no_grad():
        weight.neg_()
    assert_close(rule.feedback_weight("2.weight"), np.sign(as_array(weight)) * magnitude)
    rule.close()
    random = dfa.SignSymmetry(mlp, magnitude="fixed_random").feedback_weight("2.weight")
    assert torch.equal(random.sign(), weight.sign()) and random.abs().std() > 0


def test_weights_in_other_places(batch: Batch) -> None:
    """Transposed, cut in two, written across: what replaces it is the feedback in the same place."""

    class Places(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Linear(5, 4)
            self.one, self.two, self.three = (nn.Parameter(torch.randn(4, 3)) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            hidden = self.body(x)
            upper, lower = self.two.t().split(2, dim=1)
            across = torch.einsum("bi,ij->bj", hidden, self.one) + torch.bmm(hidden[None], self.three[None])[0]
            return across + hidden[:, :2] @ upper.t() + hidden[:, 2:] @ lower.t()

    model = Places().double()
    rule = dfa.FeedbackAlignment(model, weights=["one", "two", "three"])
    logits = model(batch[0])
    logits.retain_grad()
    rule.backward(cross_entropy(logits, batch[1]))
    assert logits.grad is not None
    total = rule.feedback_weight("one") + rule.feedback_weight("two") + rule.feedback_weight("three")
    assert_close(model.body.weight.grad, as_array((logits.grad @ total.T).T @ batch[0]))
    assert rule.replaced == {"one", "two", "three"}


def test_attention_projections_are_replaced() -> None:
    """Zero feedback for the output projection: nothing reaches the rest of the attention."""
    model = nn.MultiheadAttention(8, 2, batch_first=True)
    rule = dfa.FeedbackAlignment(model)
    for name in rule.weights:
        rule.feedback_weight(name).zero_()
    x = torch.randn(2, 5, 8)
    rule.backward(model(x, x, x)[0].square().sum())
    found = gradients(model)
    assert found["out_proj.weight"].abs().max() > 0
    assert found["in_proj_weight"].abs().max() == 0


def test_pauses_and_closing_are_exact(mlp: nn.Sequential, batch: Batch) -> None:
    expected = backpropagated(mlp, lambda: cross_entropy(mlp(batch[0]), batch[1]))
    rule = dfa.FeedbackAlignment(mlp)
    with rule.paused():
        cross_entropy(mlp(batch[0]), batch[1]).backward()
    assert_same(gradients(mlp), expected, tolerance=0)
    rule.close()
    mlp.zero_grad()
    cross_entropy(mlp(batch[0]), batch[1]).backward()
    assert_same(gradients(mlp), expected, tolerance=0)


@pytest.mark.parametrize("key", SEQUENTIAL)
def test_pauses_within_a_loss_are_refused(key: str, mlp: nn.Sequential, batch: Batch) -> None:
    """Their gradients are exact, those of the rest are not, and one backward pass cannot tell them apart."""
    rule = dfa.RULES.build(key.strip(), mlp, **SEQUENTIAL[key])
    alone = step(rule, mlp, batch)
    mlp.zero_grad()
    with rule.paused():
        exact = cross_entropy(mlp(-batch[0]), batch[1])
        x = batch[0].clone().requires_grad_()
        slope = torch.autograd.grad(mlp(x).sum(), x, create_graph=True)[0].square().sum()
    with rule.paused(), torch.no_grad():
        mlp(batch[0])
    for part in (exact, slope):
        with pytest.raises(dfa.PointError, match=r"paused\(\).*by itself"):
            rule.backward(cross_entropy(mlp(batch[0]), batch[1]) + part)
    assert not gradients(mlp)
    if key != "kolen_pollack":  # whose weights have decayed
        exact.backward()
        assert_same(step(rule, mlp, batch), alone, tolerance=0)


@pytest.mark.parametrize("pauses", [1, 40])
@pytest.mark.parametrize("name", ["fa", "calibrate"])
def test_a_pause_is_remembered(name: str, pauses: int, mlp: nn.Sequential, batch: Batch) -> None:
    """Also of the rule inside another one, and however many came after it."""
    options = {"rule": "fa", "every": 1000} if name == "calibrate" else {}
    rule = dfa.RULES.build(name, mlp, ["1"], **options)
    step(rule, mlp, batch)  # under calibrate, the exact one
    with rule.paused():
        with rule.paused():
            mlp(batch[0])
        penalty = cross_entropy(mlp(-batch[0]), batch[1])
    for _ in range(pauses):
        with rule.paused():
            mlp(batch[0])
    with pytest.raises(dfa.PointError, match=r"paused\(\).*by itself"):
        rule.backward(cross_entropy(mlp(batch[0]), batch[1]) + penalty)


def test_a_pass_between_pauses_is_none_of_them(mlp: nn.Sequential, batch: Batch) -> None:
    with dfa.FeedbackAlignment(mlp) as rule:
        alone = step(rule, mlp, batch)
        mlp.zero_grad()
        with rule.paused():
            mlp(batch[0])
        loss = cross_entropy(mlp(batch[0]), batch[1])
        with rule.paused():
            mlp(batch[0])
        rule.backward(loss)
        assert_same(gradients(mlp), alone, tolerance=0)


@pytest.mark.parametrize("key", SEQUENTIAL)
def test_weights_without_a_shape_are_refused(key: str) -> None:
    """Later they would be weights that the rule knows nothing of."""
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.LazyLinear(3))
    with pytest.raises(dfa.PointError, match=r"'2\.weight' has no shape yet.*run one batch"):
        dfa.RULES.build(key.strip(), model, **SEQUENTIAL[key])
    model(torch.randn(2, 5))
    assert "2.weight" in dfa.RULES.build(key.strip(), model, **SEQUENTIAL[key]).state_dict()


def test_autocast(mlp: nn.Sequential, batch: Batch) -> None:
    """Products are rounded to three digits, and go through B rounded so."""
    rule = dfa.FeedbackAlignment(mlp.float())
    x = batch[0].float()
    rule.backward(cross_entropy(mlp(x), batch[1]))
    expected = {name: gradient.clone() for name, gradient in gradients(mlp).items()}
    mlp.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        loss = cross_entropy(mlp(x), batch[1])
    rule.backward(loss)
    for name, gradient in gradients(mlp).items():
        torch.testing.assert_close(gradient, expected[name], rtol=0.05, atol=0.02 * expected[name].abs().max().item())


def test_nothing_to_replace() -> None:
    with pytest.raises(dfa.PointError, match="no weight of two dimensions or more matches head"):
        dfa.FeedbackAlignment(nn.Linear(3, 3), weights="head")


@pytest.mark.parametrize("name", ["fa", "sign_symmetry", "kolen_pollack"])
def test_a_model_is_free_after_a_failed_construction(
    name: str, mlp: nn.Sequential, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(f"dfa.rules.{name}.gaussian_like", fail)
    with pytest.raises(MemoryError):
        dfa.RULES.build(name, mlp)
    dfa.Backpropagation(mlp).close()


@pytest.mark.parametrize("name", ["dfa", "fa", "sign_symmetry", "kolen_pollack", "low_rank"])
def test_draws_do_not_depend_on_the_default_device(name: str, mlp: nn.Sequential, batch: Batch) -> None:
    """Of which "meta" stands for a GPU."""

    def found() -> dict[str, Tensor]:
        with dfa.RULES.build(name, mlp, points=["1"]) as rule:
            mlp.zero_grad()
            rule.backward(cross_entropy(mlp(batch[0]), batch[1]))
            return {key: gradient.clone() for key, gradient in gradients(mlp).items()}

    before = copy.deepcopy(mlp.state_dict())
    expected = found()
    mlp.load_state_dict(before)
    torch.set_default_device("meta")
    try:
        assert_same(found(), expected)
    finally:
        torch.set_default_device(None)
