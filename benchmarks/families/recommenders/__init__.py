"""Recommenders: click-through rate prediction on Criteo, MovieLens and a synthetic log.

Importing the package registers its tasks and models.
"""

from benchmarks.families.recommenders import models, task
from benchmarks.families.recommenders.task import data_files, missing_data

__all__ = ["data_files", "missing_data", "models", "task"]
