"""View synthesis: neural radiance fields on pictures with known cameras (Tables 1 and A5, Figures 1 and A1 to A3)."""

from benchmarks.families.view_synthesis import figures, models, task
from benchmarks.families.view_synthesis.data import data_files, missing_data

__all__ = ["data_files", "figures", "missing_data", "models", "task"]
