"""Names of feedback matrices in saved states, and whether a state is one of this rule's."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dfa.errors import FeedbackError


def matrix_key(error_name: str, point: str) -> str:
    """Return the key of a point's matrix, with "/" for the dots of names and "(output)" for the model itself."""
    return f"{_part(error_name)}:{_part(point)}"


def matrix_keys(error_names: Sequence[str], points: Sequence[str], shared: bool) -> list[str]:
    """Return the keys of all matrices that a rule may have.

    Raises:
        FeedbackError: two have the same key.
    """
    names: dict[str, tuple[str, str]] = {}
    for error in error_names:
        for point in ["shared"] if shared else points:
            key = matrix_key(error, point)
            if other := names.get(key):
                one, two = (other[1], point) if other[0] == error else (other[0], error)
                raise FeedbackError(
                    f"the matrices of '{one}' and '{two}' would both be called '{key}': rename a module"
                )
            names[key] = error, point
    return [*names]


def check_entries(rule: str, state: Any, keys: Iterable[str]) -> None:
    """Check that a saved state has the entries that a rule saves, and no others.

    Raises:
        FeedbackError: it has not, or is no mapping.
    """
    _check_mapping(state)
    keys = list(keys)
    if state.keys() != set(keys):
        given = ", ".join(sorted(map(str, state))) or "nothing"
        raise FeedbackError(f"rule '{rule}' saves {', '.join(keys) or 'nothing'}, but was given {given}")


def check_tensor(key: str, value: Any, shape: Sequence[int]) -> None:
    """Check that an entry of a saved state is a tensor of a shape.

    Raises:
        FeedbackError: it is not.
    """
    if not isinstance(value, Tensor):
        raise FeedbackError(f"the saved state of '{key}' is no tensor but of type {type(value).__name__}")
    if value.shape != torch.Size(shape):
        raise FeedbackError(f"the saved state of '{key}' has shape {tuple(value.shape)}, not {tuple(shape)}")


def check_counter(key: str, value: Any) -> None:
    """Check that an entry of a saved state is a whole number, plain or in a tensor, not below 0.

    Raises:
        FeedbackError: it is not.
    """
    if isinstance(value, Tensor):
        check_tensor(key, value, ())
        value = value.item()
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise FeedbackError(f"the saved state of '{key}' must be a whole number, not below 0, got {value!r}")


def check_matrices(state: Any, keys: Iterable[str]) -> None:
    """Check that a saved state holds matrices, and under no other keys.

    Raises:
        FeedbackError: it holds something else.
    """
    check_known(state, keys)
    for key, saved in state.items():
        if not isinstance(saved, Tensor) or saved.ndim != 2:
            raise FeedbackError(f"the saved state has something else in the place of matrix '{key}'")


def without_entry(state: Any, key: str) -> Any:
    """Return a saved state without one of its entries; what is no mapping is left to the checks."""
    return {name: value for name, value in state.items() if name != key} if isinstance(state, Mapping) else state


def check_known(state: Any, keys: Iterable[str]) -> None:
    """Check that a saved state has no other entries than some.

    Raises:
        FeedbackError: it has, or is no mapping.
    """
    _check_mapping(state)
    if others := sorted(map(str, set(state) - set(keys))):
        raise FeedbackError(f"the saved state has {', '.join(map(repr, others))}, which this rule does not have")


def _check_mapping(state: Any) -> None:
    if not isinstance(state, Mapping):
        raise FeedbackError(f"a saved state maps names to values, but this one is of type {type(state).__name__}")


def _part(name: str) -> str:
    return name.replace(".", "/") or "(output)"
