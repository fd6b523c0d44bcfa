"""View synthesis: neural radiance fields on pictures with known cameras (Tables 1 and A5, Figures 1 and A1 to A3)."""

from benchmarks.families.view_synthesis import figures, models, task

__all__ = ["figures", "models", "task"]
