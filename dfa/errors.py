"""Errors of a rule that does not fit its model, and of processes that train one together."""


class PointError(ValueError):
    """A feedback point or error tensor that cannot be found, never runs, or has nothing to train."""


class FeedbackError(ValueError):
    """A feedback matrix that does not fit its error or point, or cannot be drawn as asked."""


class PipelineError(RuntimeError):
    """A stage of a pipeline that has no answer from another one."""
