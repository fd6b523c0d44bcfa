"""Modules whose output is cut, and that a forward pass leaves out or that are no longer part of the model."""

import pytest
from torch import nn

import dfa
from tests.dfa.reference import assert_same
from tests.dfa.steps import Batch, step


@pytest.mark.parametrize("name", ["dfa", "shallow", "dkp"])
@pytest.mark.parametrize("silent", [False, True], ids=["point", "silent"])
def test_module_that_was_replaced(name: str, silent: bool, mlp: nn.Sequential, batch: Batch) -> None:
    rule = dfa.RULES.build(name, mlp, "1" if silent else ["1", "3"], silent="3" if silent else ())
    step(rule, mlp, batch)
    mlp[3] = nn.Tanh()
    with pytest.raises(dfa.PointError, match=r"no longer part of the model.*: 3;"):
        step(rule, mlp, batch)


def test_module_that_a_pass_leaves_out_or_that_is_wrapped(mlp: nn.Sequential, batch: Batch) -> None:
    """Layer drop, and a wrapper around a point, take nothing away."""
    rule = dfa.DirectFeedbackAlignment(mlp, ["1", "3"])
    expected = step(rule, mlp, batch)
    mlp[3] = nn.Sequential(mlp[3])
    assert_same(step(rule, mlp, batch), expected, tolerance=1e-12)
    layers = [mlp[0], mlp[1], mlp[2], nn.Sequential(), mlp[4]]
    mlp.__dict__["forward"] = lambda x: layers[4](layers[2](layers[1](layers[0](x))))
    assert step(rule, mlp, batch).keys() == expected.keys()
