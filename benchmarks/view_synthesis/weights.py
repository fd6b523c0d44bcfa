"""A finished run brought back: its task, and its model with the weights that it was tested with."""

from safetensors.torch import load_model
from torch import nn

from benchmarks.config import Config
from benchmarks.errors import ResultsError
from benchmarks.execute import build_model, build_task, find_device
from benchmarks.records import RunFolder
from benchmarks.view_synthesis.task import ViewSynthesis


def restore(config: Config) -> tuple[ViewSynthesis, nn.Module]:
    """Task and model of the run that `config` describes, on its device.

    Raises:
        ResultsError: the run has not finished.
        ConfigError, DataError: see `build_task`.
    """
    folder = RunFolder.of(config)
    weights = folder.weights(config.trainer.selection)
    if not weights.exists():
        raise ResultsError(f"no finished run in '{folder.path}'; train it first with the same settings")
    device = find_device(config.run.device)
    task = build_task(config)
    if not isinstance(task, ViewSynthesis):
        raise ResultsError(f"task '{config.task.name}' has no views to render")
    model = build_model(config, task)
    load_model(model, str(weights))
    task.to(device)
    return task, model.to(device).eval()
