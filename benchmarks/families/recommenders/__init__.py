"""Recommenders: click prediction on Criteo, MovieLens and a generated log; importing registers tasks and models."""

from benchmarks.families.recommenders import models, task

__all__ = ["models", "task"]
