"""Errors about error tensors that have no feedback point, or nothing that learns between it and them."""

from collections.abc import Mapping

from dfa.errors import PointError


def no_point(error: str, reached: Mapping[str, bool]) -> PointError:
    """Return the error of an error tensor without a point; `reached` says of every point whether it has ever run."""
    if any(reached.values()):
        return no_point_of_its_own(error)
    return PointError(f"feedback point(s) never reached before error tensor '{_shown(error)}': {', '.join(reached)}")


def no_point_of_its_own(error: str) -> PointError:
    """Return the error of an error tensor whose points all belong to another."""
    return PointError(
        f"error tensor '{_shown(error)}' has no feedback point of its own, for a point belongs to the next"
        " error tensor that is computed: name the points of each, points={pattern: error tensor}, or take one error"
        " (one module, run twice above the same points: run it once, on its two inputs stacked)"
    )


def nothing_learns_above(point: str, error: str) -> PointError:
    """Return the error of a model's output that is just its topmost point.

    All is cut at the points, so an output without a gradient depends on no parameter that learns above them. A module
    inside the model may be named as error tensor there, as the end of a residual path: more lies above it.
    """
    return PointError(
        f"nothing that could learn lies between feedback point '{point}' and error tensor '{_shown(error)}',"
        " which thus has no gradient: leave the point out, so that its module learns from the true error"
    )


def _shown(error: str) -> str:
    return error or "model output"
