"""One training step of a classifier under a rule."""

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import dfa
from tests.dfa.reference import gradients

Batch = tuple[Tensor, Tensor]


def step(rule: dfa.Rule, model: nn.Module, batch: Batch, factor: float = 1.0) -> dict[str, Tensor]:
    """Gradients of `factor` times the mean cross-entropy, by parameter name."""
    model.zero_grad()
    rule.backward(factor * cross_entropy(model(batch[0]), batch[1]))
    return gradients(model)
