"""Evaluation of the models that the paper's authors released; only tensors are read from a checkpoint."""

import pickle
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.config import compose_config, resolve
from benchmarks.errors import ConfigError, DataError
from benchmarks.run.build import build_model, build_task, find_device, load_components
from benchmarks.run.trainer import evaluate
from benchmarks.utils.download import sha256_of
from benchmarks.utils.machine import commit, device_name, versions
from benchmarks.utils.overrides import value_of
from benchmarks.utils.text import first_line

MODEL = "nerf_release"
LEVELS = {"model_coarse_state_dict": "coarse", "model_fine_state_dict": "fine"}
LAYERS = {
    "layer1": "trunk.0.linear",
    "layers_xyz.0": "trunk.1.linear",
    "layers_xyz.1": "trunk.2.linear",
    "layers_xyz.2": "trunk.3.linear",
    "fc_alpha": "density",
    "fc_feat": "feature.linear",
    "layers_dir.0": "view.linear",
    "fc_rgb": "color",
}
"""Name of a layer in the released code → name in `models.Field`."""


def load_released(path: Path, model: nn.Module) -> None:
    """Load the weights of a released checkpoint into a `nerf_release` model.

    Raises:
        DataError: the file cannot be read, or holds another model.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    except (RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as error:
        raise DataError(f"{path} is not a checkpoint of tensors: {first_line(error)}") from None
    weights = rename(content, str(path))
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise DataError(f"{path} does not fit the released network: {str(error).splitlines()[-1].strip()}") from None


def rename(content: Any, where: str) -> dict[str, Tensor]:
    """Return the weights of a released checkpoint under the names of `nerf_release`.

    Args:
        content: the loaded checkpoint.
        where: name of the file for error messages.

    Raises:
        DataError: a weight is missing.
    """
    weights: dict[str, Tensor] = {}
    for key, level in LEVELS.items():
        part = content.get(key) if isinstance(content, dict) else None
        if not isinstance(part, dict):
            raise DataError(f"{where} has no entry {key}")
        for released, own in LAYERS.items():
            for kind in ("weight", "bias"):
                if not isinstance(part.get(f"{released}.{kind}"), Tensor):
                    raise DataError(f"{where}: {key} has no {released}.{kind}")
                weights[f"{level}.{own}.{kind}"] = part[f"{released}.{kind}"].float()
    return weights


def evaluate_released(path: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """Evaluate a released model on the test views.

    Args:
        path: the checkpoint.
        overrides: of the configuration, with a task.

    Returns:
        `metrics`, and the checkpoint, data, device, versions and commit.

    Raises:
        DataError: see `load_released`.
        ConfigError: the configuration is not valid, names no task or another model.
    """
    start = time.monotonic()
    if not value_of(overrides, "task"):
        raise ConfigError("name the task with the test views, e.g. task=blender_lego")
    if value_of(overrides, "model") not in ("", MODEL):
        raise ConfigError(f"released models are of model={MODEL}, got model={value_of(overrides, 'model')}")
    config = resolve(compose_config([*overrides, f"model={MODEL}"]))
    load_components(config)
    device = find_device(config.run.device)
    torch.set_num_threads(config.trainer.threads or torch.get_num_threads())
    task = build_task(config)
    model = build_model(config, task)
    load_released(path, model)
    model.to(device)
    task.to(device)
    metrics = {f"test/{name}": value for name, value in evaluate(task, model, "test").items()}
    return {
        "file": path.name,
        "sha256": sha256_of(path),
        "overrides": list(overrides),
        "data": asdict(task.info),
        "metrics": metrics,
        "seconds": time.monotonic() - start,
        "device": device_name(device),
        "versions": versions(),
        "commit": commit()[0],
    }
