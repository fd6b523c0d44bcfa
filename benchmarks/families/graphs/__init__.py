"""Graphs: node classification and link prediction on citation graphs (Tables 3, 4, A.2 and A.4).

Importing the package registers its tasks, models, rules and figures.
"""

from benchmarks.families.graphs import figures, models, rules, task

__all__ = ["figures", "models", "rules", "task"]
