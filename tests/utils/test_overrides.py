"""Overrides as a list: the last value of a key counts, and keys are whole words."""

from benchmarks.utils.overrides import value_of, with_value, without

_LIST = ("task=cora", "rule=bp", "rule.options.seed=1", "rule=dfa", "+x=a=b")


def test_the_last_value_counts() -> None:
    assert value_of(_LIST, "rule") == "dfa" and value_of(_LIST, "model") == ""
    assert value_of(_LIST, "+x") == "a=b"


def test_a_key_is_left_out_or_replaced_and_those_that_begin_alike_stay() -> None:
    assert without(_LIST, "rule") == ("task=cora", "rule.options.seed=1", "+x=a=b")
    assert with_value(_LIST, "rule", "fa") == ("task=cora", "rule=fa", "rule.options.seed=1", "rule=fa", "+x=a=b")
