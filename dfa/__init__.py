"""Direct feedback alignment for any PyTorch model.

rule = dfa.DirectFeedbackAlignment(model, points=["blocks.*"])
loss = criterion(model(x), y)
rule.backward(loss)      # the only line that differs from ordinary PyTorch
optimizer.step()
"""

from dfa.alignment import PointAlignment, measure_alignment
from dfa.errors import FeedbackError, PointError
from dfa.feedback import FeedbackMatrices
from dfa.rules import RULES, Backpropagation, DirectFeedbackAlignment, DirectRule, Rule, Shallow

__all__ = [
    "RULES",
    "Backpropagation",
    "DirectFeedbackAlignment",
    "DirectRule",
    "FeedbackError",
    "FeedbackMatrices",
    "PointAlignment",
    "PointError",
    "Rule",
    "Shallow",
    "measure_alignment",
]
