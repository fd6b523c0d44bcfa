"""Names of feedback matrices in saved states, and whether a state is one of this rule's."""

from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor

from dfa.errors import FeedbackError


def matrix_key(error_name: str, point: str) -> str:
    """Return the key of a point's matrix, with "/" for the dots of names and "(output)" for the model itself."""
    return f"{_part(error_name)}:{_part(point)}"


def matrix_keys(error_names: Sequence[str], points: Sequence[str], shared: bool) -> list[str]:
    """Return the keys of all matrices that a rule may have."""
    return [matrix_key(error, point) for error in error_names for point in (["shared"] if shared else points)]


def check_matrices(state: Mapping[str, Tensor], keys: Iterable[str]) -> None:
    """Check that a saved state holds matrices, and under no other keys.

    Raises:
        FeedbackError: it holds something else.
    """
    check_known(state, keys)
    for key, saved in state.items():
        if not isinstance(saved, Tensor) or saved.ndim != 2:
            raise FeedbackError(f"the saved state has something else in the place of matrix '{key}'")


def check_known(state: Iterable[str], keys: Iterable[str]) -> None:
    """Check that a saved state has no other entries than some.

    Raises:
        FeedbackError: it has.
    """
    if others := sorted(set(state) - set(keys)):
        raise FeedbackError(f"the saved state has {', '.join(map(repr, others))}, which this rule has not")


def _part(name: str) -> str:
    return name.replace(".", "/") or "(output)"
