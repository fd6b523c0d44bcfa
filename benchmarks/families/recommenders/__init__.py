"""Recommenders: click-through rate prediction on Criteo, MovieLens and a synthetic log.

Importing the package registers its tasks and models.
"""

from benchmarks.families.recommenders import models, task

__all__ = ["models", "task"]
