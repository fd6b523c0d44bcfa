"""A finished run brought back: its task, and its model with the weights that it left."""

from safetensors import SafetensorError
from safetensors.torch import load_model
from torch import nn

from benchmarks.config import Config
from benchmarks.errors import ResultsError
from benchmarks.execute import build_model, build_task, find_device, load_components
from benchmarks.records import RunFolder
from benchmarks.task import Task


def restore(config: Config, folder: RunFolder | None = None, which: str | None = None) -> tuple[Task, nn.Module]:
    """Task and model of the run that `config` describes, on its device, the model in evaluation mode.

    Args:
        folder: where the run lies; None: where the configuration puts it.
        which: "best" or "last" weights; None: those that were tested.

    Raises:
        ResultsError: the run has not finished, or its weights are not those of its model.
        ConfigError, DataError: see `build_task`.
    """
    folder = folder or RunFolder.of(config)
    weights = folder.weights(which or config.trainer.selection)
    if not weights.exists():
        raise ResultsError(f"no finished run in '{folder.path}'; train it first with the same settings")
    load_components(config)
    device = find_device(config.run.device)
    task = build_task(config)
    model = build_model(config, task)
    try:
        load_model(model, str(weights))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ResultsError(f"the weights in {weights} do not fit the run's model: {error}") from None
    task.to(device)
    return task, model.to(device).eval()
