"""Numbers that are no good, and factors on the loss: no lasting harm, no wrong scale, or one refusal."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import dfa
from tests.dfa.reference import assert_same
from tests.dfa.refusals import REFUSALS, one_step, to_mend

Batch = tuple[Tensor, Tensor]
LEARNED = ["dkp", "low_rank", "fdfa", "grape"]


def tensors(state: Any) -> list[Tensor]:
    if isinstance(state, Tensor):
        return [state]
    values = state.values() if isinstance(state, dict) else state if isinstance(state, list) else []
    return [tensor for value in values for tensor in tensors(value)]


@pytest.mark.parametrize("number", [float("inf"), float("nan")])
@pytest.mark.parametrize(
    "name", ["low_rank", *(pytest.param(name, marks=to_mend) for name in ("dkp", "fdfa", "grape"))]
)
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


@pytest.mark.parametrize("name", ["dkp", pytest.param("drtp", marks=to_mend)])
def test_scaled_loss(name: str, mlp: nn.Sequential, batch: Batch) -> None:
    """GradScaler multiplies the loss, and divides the gradients afterwards: as if it had done neither."""
    scale = 2.0**14

    def loss() -> Tensor:
        return cross_entropy(mlp(batch[0]), batch[1])

    def two_steps(factor: float) -> dict[str, Tensor]:
        rule = dfa.RULES.build(name, mlp, ["1", "3"])
        one_step(rule, mlp, lambda: factor * loss())
        found = {key: gradient / factor for key, gradient in one_step(rule, mlp, lambda: factor * loss()).items()}
        rule.close()
        return found

    expected = two_steps(1.0)
    try:
        found = two_steps(scale)
    except REFUSALS as error:
        assert "\n" not in str(error)
        return
    assert_same(found, expected, tolerance=1e-4)


@to_mend
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
