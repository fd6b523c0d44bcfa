"""Recommenders: click prediction on Criteo, MovieLens and a generated log; importing registers tasks and models."""

from benchmarks.families.recommenders import models, task
from benchmarks.families.recommenders.task import data_files, missing_data

__all__ = ["data_files", "missing_data", "models", "task"]
