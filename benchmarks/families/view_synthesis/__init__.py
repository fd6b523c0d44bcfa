"""View synthesis: neural radiance fields from pictures with known cameras (Tables 1, A5; Figures 1, A1 to A3).

Importing the package registers its tasks, models and figures.
"""

from benchmarks.families.view_synthesis import figures, models, task
from benchmarks.families.view_synthesis.data import data_files, missing_data

__all__ = ["data_files", "figures", "missing_data", "models", "task"]
