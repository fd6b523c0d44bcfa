"""Numbers that are no good, and factors on the loss: no lasting harm, no wrong scale, or one refusal."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy, binary_cross_entropy_with_logits, cross_entropy

import dfa
from tests.dfa.reference import assert_same
from tests.dfa.refusals import one_step

Batch = tuple[Tensor, Tensor]
LEARNED = ["dkp", "low_rank", "fdfa", "grape"]


def tensors(state: Any) -> list[Tensor]:
    if isinstance(state, Tensor):
        return [state]
    values = state.values() if isinstance(state, dict) else state if isinstance(state, list) else []
    return [tensor for value in values for tensor in tensors(value)]


@pytest.mark.parametrize("number", [float("inf"), float("nan")])
@pytest.mark.parametrize("name", LEARNED)
def test_learned_matrices_survive_a_bad_batch(name: str, number: float, mlp: nn.Sequential, batch: Batch) -> None:
    """The optimiser's step may be left out (as GradScaler does); what a matrix has learned cannot be undone."""
    rule = dfa.RULES.build(name, mlp, ["1", "3"])
    one_step(rule, mlp, lambda: cross_entropy(mlp(batch[0]), batch[1]))
    bad = batch[0].clone()
    bad[0, 0] = number
    rule.backward(cross_entropy(mlp(bad), batch[1]))
    assert all(tensor.isfinite().all() for tensor in tensors(rule.state_dict()))
    found = one_step(rule, mlp, lambda: cross_entropy(mlp(batch[0]), batch[1]))
    assert all(gradient.isfinite().all() for gradient in found.values())


SCALED: list[tuple[str, dict[str, Any]]] = [
    ("drtp", {}),
    ("dkp", {"lr": 0.1, "optimizer": "sgd"}),
    ("dkp", {"lr": 0.1, "decay": 0.5}),
    ("low_rank", {"rank": 2}),
]


@pytest.mark.parametrize(("name", "options"), SCALED)
def test_scaled_loss(name: str, options: dict[str, Any], mlp: nn.Sequential, batch: Batch) -> None:
    """GradScaler multiplies the loss, and divides the gradients afterwards: as if it had done neither."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**14)

    def two_steps(scale: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        rule = dfa.RULES.build(name, mlp, ["1", "3"], **options)
        for _ in range(2):  # what is learned in the first shows in the second
            found = one_step(rule, mlp, lambda: scale(cross_entropy(mlp(batch[0]), batch[1])))
        rule.close()
        return found

    scaled = two_steps(scaler.scale)
    assert_same({key: gradient / 2.0**14 for key, gradient in scaled.items()}, two_steps(lambda loss: loss), 1e-6)


def test_a_factor_of_the_loss_itself_is_no_scale(mlp: nn.Sequential, batch: Batch) -> None:
    """The signals of `drtp` are those of a mean, whatever number the loss is multiplied by."""
    rule = dfa.DirectRandomTargetProjection(mlp, ["1", "3"])
    expected = one_step(rule, mlp, lambda: cross_entropy(mlp(batch[0]), batch[1]))
    found = one_step(rule, mlp, lambda: 0.5 * cross_entropy(mlp(batch[0]), batch[1]))
    assert_same({**found, "4.weight": 2 * found["4.weight"], "4.bias": 2 * found["4.bias"]}, expected)


@pytest.mark.parametrize("name", ["drtp", "dkp"])
def test_scaled_terms_of_a_loss(name: str, mlp: nn.Sequential, batch: Batch) -> None:
    """(s a + s b) / 2 is s (a + b) / 2."""

    def two_steps(loss: Callable[[Tensor, Tensor], Tensor]) -> dict[str, Tensor]:
        options: dict[str, Any] = {"lr": 0.1, "optimizer": "sgd"} if name == "dkp" else {}
        with dfa.RULES.build(name, mlp, ["1", "3"], **options) as rule:
            for _ in range(2):
                terms = [cross_entropy(mlp(sign * batch[0]), batch[1]) for sign in (1, -1)]
                found = one_step(rule, mlp, lambda terms=terms: loss(*terms))  # type: ignore[misc]
        return found

    scaler = torch.amp.GradScaler("cpu", init_scale=1000.0)
    expected = {key: 1000 * gradient for key, gradient in two_steps(lambda a, b: (a + b) / 2).items()}
    assert_same(two_steps(lambda a, b: (scaler.scale(a) + scaler.scale(b)) / 2), expected)
    assert_same(two_steps(lambda a, b: -0.5 * (-scaler.scale(a) - scaler.scale(b))), expected)
    assert_same(two_steps(lambda a, b: scaler.scale((a + b) * torch.tensor(0.5))), expected)
    assert_same(two_steps(lambda a, b: torch.stack([scaler.scale(a), scaler.scale(b)]).sum() / 2), expected)
    assert_same(two_steps(lambda a, b: scaler.scale(torch.stack([a, b])).mean()), expected)
    halves = torch.tensor(0.5)
    assert_same(two_steps(lambda a, b: (scaler.scale(torch.stack([a, b])) * halves).reshape(2).sum()), expected)
    unscaled = two_steps(lambda a, b: (torch.stack([a, b]) * halves).sum())
    assert_same({key: 1000 * gradient for key, gradient in unscaled.items()}, expected)


@pytest.mark.parametrize("name", ["drtp", "dkp"])
def test_a_factor_that_may_be_a_scale_or_not_is_refused(name: str, mlp: nn.Sequential, batch: Batch) -> None:
    def refused(match: str, loss: Callable[[Tensor], Tensor]) -> None:
        with pytest.raises(dfa.PointError, match=match):
            rule.backward(loss(cross_entropy(mlp(batch[0]), batch[1])))

    rule = dfa.RULES.build(name, mlp, ["1", "3"])
    scalers = [torch.amp.GradScaler("cpu") for _ in range(2)]
    refused("multiply by a number", lambda loss: loss * torch.tensor(0.01))
    refused("multiply by a number", lambda loss: scalers[0].scale(loss) * torch.tensor(0.01))
    refused("multiply by a number", lambda loss: torch.add(*scalers[0].scale([loss, loss])))  # copies of the factor
    refused("must scale all terms", lambda loss: scalers[0].scale(loss) + loss)
    refused("must scale all terms", lambda loss: scalers[0].scale(loss) + scalers[1].scale(loss))


@pytest.mark.parametrize("width", [1, 2, 3])
def test_targets_that_cannot_be_read_off_signs_are_refused(width: int, batch: Batch) -> None:
    """Where the output overshoots a soft target, its error turns round; and one output may be anything."""
    model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, width)).double()
    hot = torch.eye(width, dtype=torch.double)[batch[1] % width] if width > 1 else (batch[1] % 2).double()[:, None]
    rule = dfa.DirectRandomTargetProjection(model, "1")

    def refused(match: str, loss: Callable[[Tensor], Tensor]) -> None:
        with pytest.raises(dfa.FeedbackError, match=match):
            rule.backward(loss(model(batch[0])))

    refused("soft targets", lambda out: binary_cross_entropy_with_logits(out, 0.9 * hot + 0.05))
    refused("soft targets", lambda out: binary_cross_entropy(out.sigmoid(), 0.9 * hot + 0.05))
    if width == 1:
        refused("binary_cross_entropy", lambda out: (out - hot).square().mean())
        rule.backward(binary_cross_entropy_with_logits(model(batch[0]), hot))
        return
    refused("soft targets", lambda out: cross_entropy(out, batch[1] % width, label_smoothing=0.1))
    refused("soft targets", lambda out: cross_entropy(out, 0.9 * hot + 0.05))
    by_index = one_step(rule, model, lambda: cross_entropy(model(batch[0]), batch[1] % width))
    assert_same(one_step(rule, model, lambda: cross_entropy(model(batch[0]), hot)), by_index)


def test_an_imaginary_part_that_would_be_lost_is_refused(mlp: nn.Sequential, batch: Batch) -> None:
    head = torch.randn(3, 3, dtype=torch.cdouble, requires_grad=True)

    class Complex(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk, self.head = mlp, nn.Parameter(head.detach())

        def forward(self, x: Tensor) -> Tensor:
            return self.trunk(x).to(torch.cdouble) @ self.head

    for name in ("dfa", "dkp"):
        model = Complex()
        rule = dfa.RULES.build(name, model, "trunk.3")
        with pytest.raises(dfa.FeedbackError, match=r"complex, and feedback point 'trunk\.3' is not"):
            rule.backward(model(batch[0]).abs().square().mean())
        rule.close()


@pytest.mark.parametrize(
    ("name", "options"),
    [("dkp", {}), ("low_rank", {"rank": 2}), ("fdfa", {}), ("grape", {}), ("sign_symmetry", {})]
    + [("highway", {"feedback": feedback}) for feedback in ("sign", "fitted")],
)
def test_rules_for_real_numbers_refuse_complex_ones(name: str, options: dict[str, Any]) -> None:
    model = nn.Sequential(*(nn.Linear(4, 4, dtype=torch.cdouble) for _ in range(3)))
    with pytest.raises((dfa.FeedbackError, dfa.PointError), match=r"real (numbers|weights).* complex"):
        dfa.RULES.build(name, model, ["0", "1"], **options).backward(
            model(torch.randn(3, 4, dtype=torch.cdouble)).abs().square().mean()
        )


def test_complex_feedback_weights() -> None:
    """FA sends δ through conj(B), as autograd sends it through conj(W)."""
    model = nn.Sequential(nn.Linear(4, 5, dtype=torch.cdouble), nn.Linear(5, 3, dtype=torch.cdouble))
    x = torch.randn(6, 4, dtype=torch.cdouble)
    rule = dfa.FeedbackAlignment(model)
    feedback = rule.state_dict()["1.weight"]
    assert feedback.imag.abs().min() > 0
    rule.backward(model(x).abs().square().sum())
    sent = 2 * model(x).detach() @ feedback.conj()
    torch.testing.assert_close(model[0].weight.grad, sent.T @ x.conj())


@pytest.mark.parametrize("name", LEARNED)
def test_a_batch_without_rows(name: str, mlp: nn.Sequential, batch: Batch) -> None:
    with dfa.RULES.build(name, mlp, ["1", "3"]) as rule:
        found = one_step(rule, mlp, lambda: mlp(batch[0][:0]).sum())
    assert all((gradient == 0).all() for gradient in found.values())


def test_scaled_loss_of_a_compiled_model_is_refused(mlp: nn.Sequential, batch: Batch) -> None:
    scaler = torch.amp.GradScaler("cpu")
    torch.compiler.reset()  # or the graph of a model alike, without hooks, might run
    compiled = torch.compile(mlp, backend="aot_eager")
    rule = dfa.DirectRandomTargetProjection(mlp, ["1", "3"])
    with pytest.raises(dfa.PointError, match="GradScaler"):
        for _ in range(2):
            rule.backward(scaler.scale(cross_entropy(compiled(batch[0]), batch[1])))


@pytest.mark.parametrize("name", ["dfa", "drtp", "identity", *LEARNED])
@pytest.mark.parametrize("used", [False, True])
def test_state_of_something_else_is_refused(name: str, used: bool, mlp: nn.Sequential, batch: Batch) -> None:
    rule = dfa.RULES.build(name, mlp, ["1", "3"])
    if used:
        one_step(rule, mlp, lambda: cross_entropy(mlp(batch[0]), batch[1]))
    state = copy.deepcopy(rule.state_dict())
    matrices = state["feedback"] if name in LEARNED else state
    matrices["(output):something/else"] = torch.ones(3, 8)
    fresh = dfa.RULES.build(name, mlp, ["1", "3"]) if rule.close() is None else rule
    with pytest.raises((ValueError, RuntimeError, KeyError), match="something/else"):
        fresh.load_state_dict(state)


@pytest.mark.parametrize("name", ["dfa", "fa", "kolen_pollack", "calibrate", "dkp", "low_rank", "fdfa", "highway"])
def test_state_of_another_kind_or_shape_is_refused(name: str, mlp: nn.Sequential, batch: Batch) -> None:
    def changed(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: changed(inner) for key, inner in value.items()}
        return torch.ones(2, 3, 4) if isinstance(value, Tensor) and value.ndim == 2 else value

    with dfa.RULES.build(name, mlp, ["1", "3"]) as rule:
        for _ in range(2):
            one_step(rule, mlp, lambda: cross_entropy(mlp(batch[0]), batch[1]))
        state = copy.deepcopy(rule.state_dict())
    with dfa.RULES.build(name, mlp, ["1", "3"]) as fresh:
        with pytest.raises(ValueError, match="saved state"):
            fresh.load_state_dict(changed(state))
        with pytest.raises(ValueError, match=r"given|does not have"):
            fresh.load_state_dict({**state, "more": torch.ones(1)})
        if name not in ("dfa",):
            with pytest.raises(ValueError, match="given"):
                fresh.load_state_dict({})
