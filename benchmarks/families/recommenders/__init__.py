"""Recommenders: click prediction on Criteo, MovieLens and a generated log; importing registers tasks and models."""

from benchmarks.families.recommenders import models, task
from benchmarks.families.recommenders.task import missing_data

__all__ = ["missing_data", "models", "task"]
