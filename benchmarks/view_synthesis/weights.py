"""A finished run of this family brought back."""

from torch import nn

from benchmarks.config import Config
from benchmarks.errors import ResultsError
from benchmarks.restore import restore
from benchmarks.view_synthesis.task import ViewSynthesis


def restore_views(config: Config) -> tuple[ViewSynthesis, nn.Module]:
    """Task and model of the run that `config` describes; see `restore`.

    Raises:
        ResultsError: besides, a task of another family.
    """
    task, model = restore(config)
    if not isinstance(task, ViewSynthesis):
        raise ResultsError(f"task '{config.task.name}' has no views to render")
    return task, model
