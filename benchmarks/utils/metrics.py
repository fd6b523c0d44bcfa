"""Names of metrics that the suite itself reads."""

CONSTANT = "constant_predictions"
"""Metric of every evaluation: 1 if the model predicts the same for each example of the split, else 0."""
