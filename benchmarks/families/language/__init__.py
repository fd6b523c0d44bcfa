"""Language: a Transformer on WikiText (Table 5); importing registers tasks, models and figures."""

from benchmarks.families.language import figures, models, task

__all__ = ["figures", "models", "task"]
