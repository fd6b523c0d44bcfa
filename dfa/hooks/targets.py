"""Where the error is taken, and which error tensor a feedback point belongs to."""

from collections.abc import Mapping, Sequence

from torch import nn

from dfa.errors import PointError
from dfa.patterns import candidates, find_modules, inner_model, matches, pattern_list

Patterns = str | Sequence[str]
Points = Patterns | Mapping[str, str]
"""Patterns of feedback points, or a mapping from patterns to the error tensor that each belongs to."""


def patterns_of(points: Points) -> Patterns:
    """Return the patterns of the feedback points themselves."""
    return list(points) if isinstance(points, Mapping) else points


def error_patterns(points: Points, error_at: Patterns) -> Patterns:
    """Return the patterns of the error tensors: `error_at`, or those that `points` names.

    Raises:
        PointError: both name some.
    """
    if not isinstance(points, Mapping):
        return error_at
    if error_at != "":
        raise PointError("points that name their error tensors leave nothing for error_at to say")
    return list(dict.fromkeys(points.values()))


def find_targets(model: nn.Module, points: Points) -> dict[str, str]:
    """Find the error tensor of each feedback point, by the point's name; nothing where `points` does not say.

    Raises:
        PointError: a pattern matches nothing, or two name different error tensors for one point.
    """
    targets: dict[str, str] = {}
    found = find_modules(model, list(points)) if isinstance(points, Mapping) else {}
    for pattern, error in points.items() if isinstance(points, Mapping) else ():
        for name in (name for name in found if matches(name, pattern)):
            if targets.setdefault(name, error) != error:
                raise PointError(f"feedback point '{name}' belongs to two error tensors: '{targets[name]}', '{error}'")
    return targets


def find_error_tensors(model: nn.Module, error_at: Patterns) -> tuple[dict[str, nn.Module], dict[str, str]]:
    """Find the modules that patterns name, by name, and the words that may name a field of the model's output.

    A word that no module is called counts as a field; whether the output has it shows in the first forward pass. With
    it comes what to say if it has not: which modules the word is like.

    Raises:
        PointError: a pattern that is not a word matches nothing, or see `pattern_list`.
    """
    patterns = pattern_list(error_at)
    names = ["", *(name for name, _ in inner_model(model).named_modules())]
    words = [word for word in patterns if word.isidentifier() and not any(matches(name, word) for name in names)]
    modules = find_modules(model, [pattern for pattern in patterns if pattern not in words])
    return modules, {word: candidates(word, names) for word in words}
