"""What can go wrong when a rule meets a model."""


class PointError(ValueError):
    """A feedback point or error tensor that cannot be found, never fired, or has nothing to train."""


class FeedbackError(ValueError):
    """A feedback matrix that does not fit the error or the point it is asked to serve."""
