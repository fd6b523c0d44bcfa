"""Every documented option can be given; what type checkers accept also runs."""

from torch import nn

import dfa
from tests.dfa.every_option import make_rules
from tests.dfa.steps import Batch, step


def test_every_rule_with_every_option(batch: Batch) -> None:
    layers = nn.Linear(5, 4), nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3)
    model = nn.Sequential(*layers).double()
    made = set()
    for rule in make_rules(model):
        step(rule, model, batch)
        rule.close()
        made.add(type(rule))
    built_in = {dfa.RULES[name] for name in dfa.RULES if dfa.RULES[name].__module__.startswith("dfa.")}
    assert built_in <= made
