"""Whether a rule does on a model what its name says."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

import dfa
from tests.zoo.entries import Entry
from tests.zoo.exchanged import NotExchangeableError, exchanged_backward
from tests.zoo.hand_cut import (
    Gradients,
    Signals,
    hand_cut,
    of_backpropagation,
    of_error_itself,
    of_targets,
    through_channel,
    through_matrices,
)
from tests.zoo.kinds import Loss

TOLERANCE = 1e-5
"""Of a gradient's largest entry, or of a millionth of the largest of all, where one is zero but for rounding."""

DEFECT, EXACT, REFUSED = "defect", "exact", "refused"


@dataclass(frozen=True)
class Outcome:
    """What came of a rule on a model.

    Attributes:
        kind: "exact" (all gradients are those of the oracle), "refused" (one clear error) or "defect".
        note: the error's text, or what is wrong.
    """

    kind: str
    note: str = ""


@dataclass(frozen=True)
class Column:
    """A rule with options.

    Attributes:
        name: as the matrix shows it.
        expected: the oracle: model, loss, entry, state of the rule → gradients.
        options: of the rule.
        still: options under which its matrices do not learn, where the state before the step is wanted.
        steps: which backward is looked at.
    """

    name: str
    rule: str
    expected: Callable[[nn.Module, Loss, Entry, dict[str, Any]], Gradients]
    options: dict[str, Any] = field(default_factory=dict)
    still: dict[str, Any] = field(default_factory=dict)
    steps: int = 1


def _exact(model: nn.Module, loss: Loss, entry: Entry, state: dict[str, Any]) -> Gradients:
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    found = torch.autograd.grad(loss(model), list(named.values()), allow_unused=True)
    return {name: gradient for name, gradient in zip(named, found, strict=True) if gradient is not None}


def _backpropagated(model: nn.Module, loss: Loss, entry: Entry, state: dict[str, Any]) -> Gradients:
    signals = of_backpropagation(copy.deepcopy(model), loss, entry.points, entry.error_at)
    return hand_cut(model, loss, entry.points, entry.error_at, signals)


def _frozen(model: nn.Module, loss: Loss, entry: Entry, state: dict[str, Any]) -> Gradients:
    return hand_cut(model, loss, entry.points, entry.error_at, None)


def _direct(signals: Callable[[dict[str, Any]], Signals]) -> Callable[..., Gradients]:
    def expected(model: nn.Module, loss: Loss, entry: Entry, state: dict[str, Any]) -> Gradients:
        return hand_cut(model, loss, entry.points, entry.error_at, signals(state))

    return expected


def _sequential(feedback: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Gradients]:
    def expected(model: nn.Module, loss: Loss, entry: Entry, state: dict[str, Any]) -> Gradients:
        weights = dict(model.named_parameters())
        matrices = {name: feedback(held, weights[name].detach()) for name, held in state.items()}
        return exchanged_backward(model, loss, matrices)

    return expected


_shared = _direct(lambda state: through_matrices(state, "shared"))
_per_point = _direct(lambda state: through_matrices(state["feedback"], "per_point"))

COLUMNS = [
    Column("bp", "bp", _exact),
    Column("shallow", "shallow", _frozen),
    Column("dfa", "dfa", _shared),
    Column(
        "dfa, a matrix each",
        "dfa",
        _direct(lambda state: through_matrices(state, "per_point")),
        {"sharing": "per_point"},
    ),
    Column("dfa, recompute", "dfa", _shared, {"memory": "recompute"}),
    Column("drtp", "drtp", _direct(of_targets)),
    Column("identity", "identity", _direct(of_error_itself)),
    Column("highway, all waves", "highway", _backpropagated, {"waves": 64}),
    Column("low_rank", "low_rank", _direct(through_channel), {"rank": 2}, {"lr": 0.0}),
    Column("dkp", "dkp", _per_point, still={"lr": 0.0}),
    Column("fdfa", "fdfa", _per_point),
    Column("grape", "grape", _per_point),
    Column("calibrate, exact batch", "calibrate", _exact),
    Column(
        "calibrate, other batch",
        "calibrate",
        _direct(lambda state: through_matrices(state["inner"], "shared")),
        steps=2,
    ),
    Column("fa", "fa", _sequential(lambda held, weight: held)),
    Column("sign_symmetry", "sign_symmetry", _sequential(lambda held, weight: held * weight.sign())),
    Column("kolen_pollack", "kolen_pollack", _sequential(lambda held, weight: weight + held)),
]


def examine(entry: Entry, column: Column) -> Outcome:
    """Train a model of the zoo for a step, and compare every gradient with the oracle's."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(entry.dtype)
    try:
        torch.manual_seed(0)
        model, loss = entry.build()
        return _compare(entry, column, model.train(), loss)
    finally:
        torch.set_default_dtype(before)


def _compare(entry: Entry, column: Column, model: nn.Module, loss: Loss) -> Outcome:
    untouched = copy.deepcopy(model)
    try:
        found, state = _train(entry, column, model, loss)
    except (dfa.PointError, dfa.FeedbackError) as error:
        text = str(error)
        return Outcome(REFUSED, text) if "\n" not in text else Outcome(DEFECT, "a refusal of several lines")
    except Exception as error:
        sentence = str(error).strip().splitlines()[0].split(". ")[0]
        return Outcome(DEFECT, f"{type(error).__name__}: {sentence}")
    try:
        expected = column.expected(untouched, loss, entry, state)
    except NotExchangeableError as error:
        return Outcome(DEFECT, f"no refusal, though {error}")
    except KeyError as error:
        return Outcome(DEFECT, f"nothing was sent through the matrix {error}")
    if wrong := differences(found, expected):
        return Outcome(DEFECT, f"{len(wrong)} gradient(s) differ, {wrong[0]}")
    return Outcome(EXACT)


def _train(entry: Entry, column: Column, model: nn.Module, loss: Loss) -> tuple[Gradients, dict[str, Any]]:
    """Gradients of the last step, and the rule's state as its signals were made."""
    arguments = model, list(entry.points), list(entry.error_at)
    state: dict[str, Any] = {}
    options = {**column.options, **_rows(entry, column.rule)}
    if column.still:
        still = dfa.RULES.build(column.rule, *arguments, **{**options, **column.still})
        still.backward(loss(model))
        state = copy.deepcopy(still.state_dict())
        still.close()
    rule = dfa.RULES.build(column.rule, *arguments, **options)
    if isinstance(rule, dfa.SequentialRule):
        state = copy.deepcopy(rule.state_dict())
    for _ in range(column.steps):
        model.zero_grad()
        rule.backward(loss(model))
    found = {name: tensor.grad for name, tensor in model.named_parameters() if tensor.grad is not None}
    state = state or copy.deepcopy(rule.state_dict())
    rule.close()
    return found, state


def _rows(entry: Entry, rule: str) -> dict[str, Any]:
    """Options that say what counts as a row, of rules that have matrices."""
    if entry.batch_dims is None or not (rule == "calibrate" or issubclass(dfa.RULES[rule], dfa.DirectRule)):
        return {}
    rows = {"batch_dims": entry.batch_dims}
    return {"options": rows} if rule == "calibrate" else rows


def differences(found: Gradients, expected: Gradients) -> Sequence[str]:
    """Parameters whose gradients differ, the largest difference first. A missing gradient counts as zero."""
    top = max((gradient.abs().max().item() for gradient in expected.values()), default=0.0)
    wrong: list[tuple[float, str]] = []
    for name in found.keys() | expected.keys():
        pair = found.get(name), expected.get(name)
        whole = next(gradient for gradient in pair if gradient is not None)
        here, wanted = (torch.zeros_like(whole) if gradient is None else gradient for gradient in pair)
        scale = max(wanted.abs().max().item(), 1e-6 * top, 1e-12)
        distance = (here - wanted).abs().max().item() / scale
        if not distance <= TOLERANCE:
            missing = " (missing)" if pair[0] is None else " (not to be)" if pair[1] is None else ""
            wrong.append((distance, f"{name} by {distance:.0%}{missing}"))
    return [text for _, text in sorted(wrong, reverse=True)]
