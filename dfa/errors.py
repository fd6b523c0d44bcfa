"""Errors of a rule that does not fit its model, and of processes that train one together."""


class PointError(ValueError):
    """A model, or a way of calling it, that a rule cannot train: its points, error tensors, weights or passes."""


class FeedbackError(ValueError):
    """A feedback matrix, an option or a saved state that does not fit, or a matrix that cannot be drawn as asked."""


class PipelineError(RuntimeError):
    """A stage of a pipeline that has no answer from another one."""


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or the error's kind where it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
