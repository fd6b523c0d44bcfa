"""Graphs: node classification and link prediction on citation graphs (Tables 3, 4, A.2 and A.4).

Importing the package registers its tasks, models, rules and figures.
"""

from benchmarks.families.graphs import figures, models, rules, task
from benchmarks.families.graphs.data import data_files, missing_data

__all__ = ["data_files", "figures", "missing_data", "models", "rules", "task"]
