"""Rules that learn their feedback, built and looked into, for their tests."""

from typing import Any

import numpy as np
from torch import nn

import dfa
from dfa.hooks.targets import Points
from tests.dfa.reference import Array, as_array

LEARNED: dict[str, dict[str, Any]] = {
    "dkp": {"lr": 0.1},
    "dkp ": {"lr": 0.1, "optimizer": "sgd"},
    "low_rank": {"rank": 2, "lr": 0.5},
    "fdfa": {"beta": 0.3, "every": 2},
    "grape": {"lr": 0.3},
}


def matrices(rule: dfa.DirectFeedbackAlignment) -> dict[str, Array]:
    """The matrix of each point, by the point's name."""
    return {name.split(":")[1]: as_array(matrix).astype(float) for name, matrix in rule.feedback.drawn.items()}


def activations(mlp: nn.Sequential, x: Array) -> tuple[Array, Array, Array, Array]:
    """Of the network 5 → 8 → 6 → 3: before ReLU, after it, after tanh, logits."""
    w1, b1, w2, b2, w3, b3 = (as_array(parameter) for parameter in mlp.parameters())
    a1 = x @ w1.T + b1
    h2 = np.tanh(np.maximum(a1, 0) @ w2.T + b2)
    return a1, np.maximum(a1, 0), h2, h2 @ w3.T + b3


def build(key: str, model: nn.Module, points: Points, **more: Any) -> dfa.LearnedFeedback:
    rule: dfa.LearnedFeedback = dfa.RULES.build(key.strip(), model, points, **LEARNED[key], **more)
    return rule
