"""Saved states that do not fit: refused before anything is replaced."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dfa
from tests.dfa.residual import LAST, POINTS, residual_network
from tests.dfa.steps import Batch, step


def changed(state: Any) -> Any:
    """A copy whose tensors are others."""
    if isinstance(state, Tensor):
        return state + 1
    return {key: changed(value) for key, value in state.items()} if isinstance(state, dict) else deepcopy(state)


def assert_equal(first: Any, second: Any) -> None:
    torch.testing.assert_close(first, second, rtol=0, atol=0)


CASES: list[tuple[str, dict[str, Any], str]] = [
    ("dkp", {}, "feedback"),
    ("dkp", {}, "optimizers"),
    ("low_rank", {"rank": 2}, "feedback"),
    ("low_rank", {"rank": 2}, "channels"),
    ("highway", {"feedback": "learned_zero"}, "between"),
    ("highway", {"feedback": "fitted"}, "between"),
    ("highway", {"feedback": "kolen_pollack"}, "matrices"),
    ("calibrate", {"rule": "dkp"}, "inner"),
]


@pytest.mark.parametrize(("name", "options", "part"), CASES, ids=[f"{name} {part}" for name, _, part in CASES])
def test_a_refused_state_leaves_the_rule_as_it_was(name: str, options: dict[str, Any], part: str, batch: Batch) -> None:
    model = residual_network()
    rule = dfa.RULES.build(name, model, POINTS, LAST, **options)
    for _ in range(3):
        step(rule, model, batch)
    before = deepcopy(rule.state_dict())
    with pytest.raises(ValueError, match="more"):
        rule.load_state_dict({**changed(before), part: {**changed(before[part]), "more": torch.ones(2, 2)}})
    assert_equal(rule.state_dict(), before)
    rule.load_state_dict(changed(before))
    assert_equal(rule.state_dict(), changed(before))


DAMAGE: dict[str, Any] = {
    "nothing": None,
    "a word": "x",
    "a number below 0": -4,
    "a fraction": 0.5,
    "a list": [1, 2],
    "other names": {"w": 3.0},
    "a tensor": torch.ones(7, 1, 2),
}
STATES: dict[str, dict[str, Any]] = {
    "dfa": {},
    "dkp": {},
    "low_rank": {"rank": 2},
    "fdfa": {},
    "grape": {},
    "fa": {},
    "kolen_pollack": {},
    "sign_symmetry": {},
    "calibrate": {"rule": "dkp", "every": 2},
    "highway": {"feedback": "fitted"},
}


def places(state: Any) -> list[tuple[str, ...]]:
    """The paths of all entries of a state."""
    found: list[tuple[str, ...]] = [()]
    for key, value in state.items() if isinstance(state, dict) else ():
        found += [(key, *rest) for rest in places(value)]
    return found


def damaged(state: Any, path: tuple[str, ...], value: Any) -> Any:
    """A copy of a state with `value` at a path."""
    if not path:
        return value
    return {key: damaged(held, path[1:], value) if key == path[0] else held for key, held in state.items()}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", STATES)
def test_a_damaged_state_is_refused_and_changes_nothing(name: str, damage: str, batch: Batch) -> None:
    model = residual_network()
    rule = dfa.RULES.build(name, model, POINTS, LAST, **STATES[name])
    for _ in range(3):
        step(rule, model, batch)
    before = deepcopy(rule.state_dict())
    for path in places(before):
        if "state" in path or "param_groups" in path:  # of an optimiser, which torch saves
            continue
        with pytest.raises(dfa.FeedbackError) as caught:
            rule.load_state_dict(damaged(deepcopy(before), path, DAMAGE[damage]))
        assert "\n" not in str(caught.value)
        assert_equal(rule.state_dict(), before)


def test_the_state_of_another_optimiser_is_refused(batch: Batch) -> None:
    model = residual_network()
    with dfa.DirectKolenPollack(model, POINTS, LAST, optimizer="adam") as rule:
        step(rule, model, batch)
        state = deepcopy(rule.state_dict())
        key, saved = next(iter(state["optimizers"].items()))
        for moments in saved["state"].values():
            moments["exp_avg"] = moments["exp_avg"][:1]
        with pytest.raises(dfa.FeedbackError, match=f"saved state of '{key}' has shape"):
            rule.load_state_dict(state)
        saved["param_groups"] = []
        with pytest.raises(dfa.FeedbackError, match="does not fit this optimizer"):
            rule.load_state_dict(state)


def test_a_channel_of_another_rank_is_refused(batch: Batch) -> None:
    model = residual_network()
    with dfa.LowRankFeedback(model, POINTS, LAST, rank=2) as rule:
        step(rule, model, batch)
        state = rule.state_dict()
    with pytest.raises(dfa.FeedbackError, match=r"saved channel of '3' has rank 2, and this rule 3"):
        dfa.LowRankFeedback(model, POINTS, LAST, rank=3).load_state_dict(state)


class Sequences(nn.Module):
    """(time, batch, 4) → (time, batch, 3)"""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.act, self.head = nn.GRU(4, 6), nn.Tanh(), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.act(self.rnn(x)[0]))


@pytest.mark.parametrize("name", ["dfa", "dkp", "calibrate"])
def test_the_order_of_rows_is_known_after_a_checkpoint(name: str) -> None:
    """Where a batch is as large as a sequence is long, sizes do not tell it any more."""
    model, options = Sequences(), {"rule": "dfa", "every": 2} if name == "calibrate" else {}
    square = torch.randn(4, 4, 4)
    with dfa.RULES.build(name, model, "act", **options) as rule:
        for _ in range(2):
            rule.backward(model(torch.randn(5, 3, 4)).square().sum())
        saved = deepcopy(rule.state_dict())
        if name == "calibrate":
            rule.backward(model(square).square().sum())
        rule.backward(model(square).square().sum())
    with dfa.RULES.build(name, model, "act", **options) as rule:
        rule.load_state_dict(saved)
        assert_equal(rule.state_dict(), saved)
        for _ in range(2):
            rule.backward(model(square).square().sum())


def test_states_that_do_not_know_the_order_of_rows() -> None:
    """As older versions have saved them; one of other points is refused."""
    model = Sequences()
    with dfa.DirectFeedbackAlignment(model, "act") as rule:
        rule.backward(model(torch.randn(5, 3, 4)).square().sum())
        state = rule.state_dict()
    assert state.keys() == {"(output):shared", "rows in order"}
    with dfa.DirectFeedbackAlignment(model, "act") as rule:
        rule.load_state_dict({"(output):shared": state["(output):shared"]})
        with pytest.raises(dfa.FeedbackError, match="may have rows in different orders"):
            rule.backward(model(torch.randn(4, 4, 4)).square().sum())
        for wrong in (None, torch.ones(2, dtype=torch.bool)):
            with pytest.raises(dfa.FeedbackError, match="saved state of 'rows in order'"):
                rule.load_state_dict({**state, "rows in order": wrong})


@pytest.mark.parametrize(
    ("name", "options"),
    [("highway", {"feedback": feedback}) for feedback in ("learned_zero", "fitted", "kolen_pollack", "sign")]
    + [(name, {}) for name in ("fa", "kolen_pollack", "sign_symmetry")],
)
@pytest.mark.parametrize("kind", ["lazy", "meta", "no weights"])
def test_a_model_whose_rule_was_refused_may_have_another(name: str, options: dict[str, Any], kind: str) -> None:
    models = {
        "lazy": lambda: nn.Sequential(nn.LazyLinear(4), nn.Tanh(), nn.LazyLinear(3)),
        "meta": lambda: nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).to("meta"),
        "no weights": lambda: nn.Sequential(nn.LayerNorm(5), nn.Tanh(), nn.LayerNorm(5)),
    }
    model = models[kind]()
    with pytest.raises(dfa.PointError, match=r"no shape yet|no numbers yet|no weight of two dimensions"):
        dfa.RULES.build(name, model, "1", **options)
    dfa.RULES.build("bp", model, "1").close()


def test_matrices_that_are_generated_anew_are_those_of_the_saved_seed(mlp: nn.Sequential, batch: Batch) -> None:
    states, found = [], []
    for seed in (1, 2**64 - 1):
        with dfa.DirectFeedbackAlignment(mlp, "1", draw="counter", keep=False, seed=seed) as rule:
            found.append(step(rule, mlp, batch)["0.weight"])
            states.append(rule.state_dict())
            rule.load_state_dict(states[-1])
    assert not torch.allclose(found[0], found[1])
    with dfa.DirectFeedbackAlignment(mlp, "1", draw="counter", keep=False, seed=2) as rule:
        with pytest.raises(dfa.FeedbackError, match="of seed 1, and rule 'dfa' generates those of seed 2"):
            rule.load_state_dict(states[0])
        with pytest.raises(dfa.FeedbackError, match="rule 'dfa' saves seed, but was given nothing"):
            rule.load_state_dict({})
    with dfa.DirectFeedbackAlignment(mlp, "1") as rule, pytest.raises(dfa.FeedbackError, match="has 'seed', which"):
        rule.load_state_dict(states[0])
