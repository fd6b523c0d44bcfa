"""Language modelling: a Transformer on WikiText (Table 5).

Importing the package registers its tasks, models and figures.
"""

from benchmarks.families.language import figures, models, task
from benchmarks.families.language.texts import data_files, missing_data

__all__ = ["data_files", "figures", "missing_data", "models", "task"]
