"""Language modelling: a Transformer on WikiText (Table 5).

Importing the package registers its tasks, models and figures.
"""

from benchmarks.families.language import figures, models, task

__all__ = ["figures", "models", "task"]
