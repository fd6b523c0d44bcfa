"""Numbers and names among a rule's options that are invalid: refused before a hook is put on the model."""

from typing import Any

import pytest
from torch import nn

import dfa

NAN, INF = float("nan"), float("inf")
BEYOND = 2**64
ROW = tuple[str, dict[str, Any], str]

NUMBERS: list[ROW] = [
    ("dfa", {"scale": NAN}, "scale must be finite, got nan"),
    ("dfa", {"scale": INF}, "scale must be finite, got inf"),
    ("dfa", {"scale": -INF}, "scale must be finite, got -inf"),
    ("dfa", {"scale": 10**400}, "scale must be finite"),
    ("dfa", {"seed": -1}, "seed must be a whole number from 0 to"),
    ("dfa", {"seed": BEYOND}, "seed must be a whole number from 0 to"),
    ("dfa", {"seed": 1.5}, "seed must be a whole number from 0 to"),
    ("dfa", {"batch_dims": 1.5}, "batch_dims must be a whole number"),
    ("drtp", {"scale": NAN}, "scale must be finite"),
    ("identity", {"damping": NAN}, "damping must be from 0 to 1, got nan"),
    ("identity", {"damping": 1e300}, "damping must be from 0 to 1"),
    ("identity", {"damping": -0.5}, "damping must be from 0 to 1"),
    ("highway", {"damping": INF}, "damping must be from 0 to 1"),
    ("highway", {"scale": INF}, "scale must be finite"),
    ("highway", {"seed": -1}, "seed must be a whole number from 0 to"),
    ("highway", {"waves": -1}, "waves must be at least 0, got -1"),
    ("highway", {"waves": 1.5}, "waves must be a whole number, got 1.5"),
    ("highway", {"feedback": "kolen_pollack", "decay": NAN}, "decay must be from 0 to 1, got nan"),
    ("highway", {"feedback": "kolen_pollack", "decay": INF}, "decay must be from 0 to 1, got inf"),
    ("highway", {"feedback": "kolen_pollack", "decay": -1}, "decay must be from 0 to 1, got -1"),
    ("highway", {"feedback": "kolen_pollack", "decay": 2}, "decay must be from 0 to 1, got 2"),
    ("highway", {"feedback": "fitted", "every": 0}, "every must be at least 1, got 0"),
    ("highway", {"feedback": "fitted", "every": NAN}, "every must be a whole number, got nan"),
    ("kolen_pollack", {"decay": NAN}, "decay must be from 0 to 1, got nan"),
    ("kolen_pollack", {"decay": -1}, "decay must be from 0 to 1, got -1"),
    ("kolen_pollack", {"decay": 2}, "decay must be from 0 to 1, got 2"),
    ("kolen_pollack", {"seed": -1}, "seed must be a whole number"),
    ("fa", {"seed": BEYOND}, "seed must be a whole number"),
    ("sign_symmetry", {"seed": -1}, "seed must be a whole number"),
    ("dkp", {"lr": NAN}, "lr must be finite and at least 0, got nan"),
    ("dkp", {"lr": -1}, "lr must be finite and at least 0, got -1"),
    ("dkp", {"decay": -1}, "decay must be finite and at least 0, got -1"),
    ("low_rank", {"lr": NAN}, "lr must be from 0 to 1, got nan"),
    ("low_rank", {"lr": 2}, "lr must be from 0 to 1, got 2"),
    ("low_rank", {"rank": 1.5}, "rank must be a whole number, got 1.5"),
    ("fdfa", {"beta": NAN}, "beta must be from 0 to 1, got nan"),
    ("fdfa", {"every": 1.5}, "every must be a whole number, got 1.5"),
    ("grape", {"lr": INF}, "lr must be finite and at least 0, got inf"),
    ("grape", {"lr": -1}, "lr must be finite and at least 0, got -1"),
    ("window", {"fraction": NAN}, "fraction must be from 0 to 1, got nan"),
    ("window", {"layers": 1.5}, "layers must be a whole number, got 1.5"),
    ("calibrate", {"every": NAN}, "every must be a whole number, got nan"),
    ("calibrate", {"rule": "shallow", "seed": -1}, "seed must be a whole number"),
    ("calibrate", {"rule": "dkp", "options": {"lr": -1.0}}, "lr must be finite and at least 0"),
]

UNUSED: list[ROW] = [
    *[
        ("highway", {"feedback": feedback, "every": 3}, f"every is an option .* 'fitted', and feedback is '{feedback}'")
        for feedback in ("transport", "learned_zero", "kolen_pollack", "sign")
    ],
    *[
        ("highway", {"feedback": feedback, "decay": 0.1}, f"decay is an option .* and feedback is '{feedback}'")
        for feedback in ("transport", "learned_zero", "fitted", "sign")
    ],
]

NAMES: list[ROW] = [
    *[
        (rule, {option: value, **others}, f"{option} must be a name pattern or several, none of them empty")
        for rule, option, others in (
            ("identity", "norms", {}),
            ("highway", "norms", {}),
            ("fa", "weights", {}),
            ("dfa", "segments", {"memory": "recompute"}),
        )
        for value in ([""], "", [1], 1, ["0", None])
    ],
    ("identity", {"norms": None}, "norms must be a name pattern"),
    ("kolen_pollack", {"weights": None}, "weights must be a name pattern"),
]

CASES = [*NUMBERS, *UNUSED, *NAMES]


@pytest.mark.parametrize(("name", "options", "message"), CASES, ids=[f"{name} {given}" for name, given, _ in CASES])
def test_refused(name: str, options: dict[str, Any], message: str, mlp: nn.Sequential) -> None:
    with pytest.raises((dfa.FeedbackError, dfa.PointError), match=message) as told:
        dfa.RULES[name](mlp, ["1", "3"], **options)
    assert "\n" not in str(told.value)
    dfa.RULES["bp"](mlp, ["1", "3"]).close()  # the model has no rule


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("dfa", {"scale": -1.0}),
        ("dfa", {"seed": BEYOND - 1}),
        ("identity", {"damping": 0}),
        ("kolen_pollack", {"decay": 1.0}),
        ("low_rank", {"lr": 0.0}),
        ("highway", {"waves": 100, "feedback": "fitted", "decay": 5e-4}),
        ("window", {"layers": 99}),
    ],
)
def test_values_in_range_are_accepted(name: str, options: dict[str, Any], mlp: nn.Sequential) -> None:
    dfa.RULES[name](mlp, ["1", "3"], **options).close()


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ({"forward_weights": "some"}, "unknown forward_weights 'some'; known: none, gains, signs, all"),
        ({"state": "matrices"}, "unknown state 'matrices'; known: none, fixed feedback, learned feedback"),
        ({"waves": -1}, "waves must be at least 0"),
        ({"waves": "x"}, "waves must be a whole number"),
    ],
)
def test_uses_that_no_table_could_show(held: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        dfa.Uses(**held)
