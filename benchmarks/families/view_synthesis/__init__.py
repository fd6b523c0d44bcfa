"""View synthesis: neural radiance fields from pictures with known cameras (Tables 1, A5; Figures 1, A1 to A3).

Importing the package registers its tasks, models and figures.
"""

from benchmarks.families.view_synthesis import figures, models, task

__all__ = ["figures", "models", "task"]
