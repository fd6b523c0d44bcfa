"""Overrides as a list: the last value of a key counts, and keys are whole words."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from benchmarks.utils.overrides import quoted, value_of, with_value, without

_LIST = ("task=cora", "rule=bp", "rule.options.seed=1", "rule=dfa", "+x=a=b")


def test_the_last_value_counts() -> None:
    assert value_of(_LIST, "rule") == "dfa" and value_of(_LIST, "model") == ""
    assert value_of(_LIST, "+x") == "a=b"


def test_a_key_is_left_out_or_replaced_and_those_that_begin_alike_stay() -> None:
    assert without(_LIST, "rule") == ("task=cora", "rule.options.seed=1", "+x=a=b")
    assert with_value(_LIST, "rule", "fa") == ("task=cora", "rule=fa", "rule.options.seed=1", "rule=fa", "+x=a=b")


@pytest.mark.parametrize(
    "text",
    [
        "2026_11_30",
        "1e3",
        "true",
        "null",
        "a (1)",
        "a,b",
        "x=y",
        "it's",
        "a\\",
        "a\\b",
        "a\\'b",
        "${seed}",
        "[1]",
        "~",
        " a ",
    ],
)
def test_a_text_in_quotes_is_read_as_it_is(text: str) -> None:
    (override,) = OverridesParser.create().parse_overrides([f"run.results_dir={quoted(text)}"])
    assert OmegaConf.create({"read": override.value()}).read == text
