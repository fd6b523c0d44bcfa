"""View synthesis: neural radiance fields on pictures with known cameras (Tables 1 and A5, Figures 1 and A1 to A3)."""

from benchmarks.view_synthesis import curves, figures, models, task
from benchmarks.view_synthesis.data import missing_data

__all__ = ["curves", "figures", "missing_data", "models", "task"]
