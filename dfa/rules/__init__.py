"""Training rules, chosen by name through `RULES`."""

from dfa.rules.backpropagation import Backpropagation
from dfa.rules.base import RULES, Rule
from dfa.rules.direct import DirectFeedbackAlignment, DirectRule
from dfa.rules.shallow import Shallow

__all__ = ["RULES", "Backpropagation", "DirectFeedbackAlignment", "DirectRule", "Rule", "Shallow"]
