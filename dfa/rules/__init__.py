"""Training rules, chosen by name through `RULES`; every file of this folder is imported and registers its rule."""

from importlib import import_module
from pkgutil import iter_modules

from dfa.base.direct import DirectRule
from dfa.base.rule import RULES, Rule, Uses
from dfa.base.sequential import SequentialRule
from dfa.rules.backpropagation import Backpropagation
from dfa.rules.calibrate import Calibrated
from dfa.rules.dfa import DirectFeedbackAlignment
from dfa.rules.dkp import DirectKolenPollack
from dfa.rules.drtp import DirectRandomTargetProjection
from dfa.rules.fa import FeedbackAlignment
from dfa.rules.fdfa import ForwardDirectFeedback
from dfa.rules.forward_mode import ForwardModeFeedback
from dfa.rules.grape import GradientAlignedFeedback
from dfa.rules.highway import Highway
from dfa.rules.identity import IdentityFeedback
from dfa.rules.kolen_pollack import KolenPollack
from dfa.rules.learned import LearnedFeedback
from dfa.rules.low_rank import LowRankFeedback
from dfa.rules.shallow import Shallow
from dfa.rules.sign_symmetry import SignSymmetry
from dfa.rules.window import Window

__all__ = [
    "RULES",
    "Backpropagation",
    "Calibrated",
    "DirectFeedbackAlignment",
    "DirectKolenPollack",
    "DirectRandomTargetProjection",
    "DirectRule",
    "FeedbackAlignment",
    "ForwardDirectFeedback",
    "ForwardModeFeedback",
    "GradientAlignedFeedback",
    "Highway",
    "IdentityFeedback",
    "KolenPollack",
    "LearnedFeedback",
    "LowRankFeedback",
    "Rule",
    "SequentialRule",
    "Shallow",
    "SignSymmetry",
    "Uses",
    "Window",
]

for _module in iter_modules(__path__):  # a file that is put here needs no further mention
    import_module(f"{__name__}.{_module.name}")
