"""Published data of the family: where the scenes lie, and what is missing."""

from functools import partial

from benchmarks.families.view_synthesis.data import SCENE_OF_TASK, data_files, missing_data
from benchmarks.registry import DATA_CHECKS, DATA_FILES

for _name in SCENE_OF_TASK:
    DATA_CHECKS.register(_name)(partial(missing_data, _name))
    DATA_FILES.register(_name)(partial(data_files, _name))
