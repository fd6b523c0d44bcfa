"""Direct feedback alignment, and other ways to learn without backpropagation, for any PyTorch model.

rule = dfa.DirectFeedbackAlignment(model, points=["blocks.*"])
loss = criterion(model(x), y)
rule.backward(loss)      # the only line that differs from ordinary PyTorch
optimizer.step()
"""

from dfa.alignment import PointAlignment, measure_alignment
from dfa.errors import FeedbackError, PointError
from dfa.explanation import Explanation, explain
from dfa.feedback.matrices import FeedbackMatrices
from dfa.hooks.points import Point
from dfa.rules import (
    RULES,
    Backpropagation,
    Calibrated,
    DirectFeedbackAlignment,
    DirectKolenPollack,
    DirectRandomTargetProjection,
    DirectRule,
    FeedbackAlignment,
    ForwardDirectFeedback,
    ForwardModeFeedback,
    GradientAlignedFeedback,
    Highway,
    IdentityFeedback,
    KolenPollack,
    LearnedFeedback,
    LowRankFeedback,
    Rule,
    SequentialRule,
    Shallow,
    SignSymmetry,
    Uses,
    Window,
)

__version__ = "0.1.0"

__all__ = [
    "RULES",
    "Backpropagation",
    "Calibrated",
    "DirectFeedbackAlignment",
    "DirectKolenPollack",
    "DirectRandomTargetProjection",
    "DirectRule",
    "Explanation",
    "FeedbackAlignment",
    "FeedbackError",
    "FeedbackMatrices",
    "ForwardDirectFeedback",
    "ForwardModeFeedback",
    "GradientAlignedFeedback",
    "Highway",
    "IdentityFeedback",
    "KolenPollack",
    "LearnedFeedback",
    "LowRankFeedback",
    "Point",
    "PointAlignment",
    "PointError",
    "Rule",
    "SequentialRule",
    "Shallow",
    "SignSymmetry",
    "Uses",
    "Window",
    "explain",
    "measure_alignment",
]
