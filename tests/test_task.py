"""What every task reports of a model that has died."""

import pytest
import torch
from torch import nn

from benchmarks.config import compose_config, resolve
from benchmarks.run.build import build_model, build_task, load_components
from benchmarks.run.trainer import evaluate
from benchmarks.task import constant_predictions


@pytest.mark.parametrize(
    ("predictions", "tolerance", "constant"),
    [
        ([3, 3, 3], 0.0, 1.0),
        ([3, 3, 4], 0.0, 0.0),
        ([[0.5, 0.1], [0.5, 0.1]], 0.0, 1.0),
        ([[0.5, 0.1], [0.5, 0.2]], 0.0, 0.0),  # one number of several differs
        ([0.5, 0.501], 0.01, 1.0),
        ([0.5, float("nan")], 0.01, 0.0),
    ],
)
def test_predictions_are_constant_if_no_two_differ(predictions: list[float], tolerance: float, constant: float) -> None:
    assert constant_predictions(torch.tensor(predictions), tolerance) == {"constant_predictions": constant}


def zero_weights(model: nn.Module) -> None:
    for parameter in model.parameters():
        nn.init.zeros_(parameter)


@pytest.mark.parametrize(
    ("task", "model"),
    [
        ("cora", "gcn"),
        ("cora_links", "gae"),
        ("criteo", "dcn"),
        ("wikitext2", "transformer_micro"),
        ("blender_lego", "nerf_release"),
        ("llff_fern", "nerf_release"),
    ],
)
def test_a_model_without_weights_predicts_a_constant_in_every_family(task: str, model: str) -> None:
    config = resolve(
        compose_config([f"task={task}", f"model={model}", "rule=bp", "scale=smoke", "task.source=stand_in"])
    )
    load_components(config)
    built = build_task(config)
    network = build_model(config, built)
    with torch.no_grad():
        for parameter in network.parameters():  # initial weights may be too small to tell examples apart
            parameter.add_(torch.randn_like(parameter), alpha=0.5 * (parameter.dim() > 1))
    assert evaluate(built, network, "test")["constant_predictions"] == 0.0
    zero_weights(network)
    assert evaluate(built, network, "test")["constant_predictions"] == 1.0


def test_an_empty_scene_is_constant_however_its_colours_differ() -> None:
    overrides = ["task=blender_lego", "model=nerf_release", "rule=bp", "scale=smoke", "task.source=stand_in"]
    config = resolve(compose_config(overrides))
    load_components(config)
    task = build_task(config)
    network = build_model(config, task)
    for field in (network.coarse, network.fine):
        assert isinstance(field, nn.Module)
        density = field.density
        assert isinstance(density, nn.Linear)
        nn.init.zeros_(density.weight)
        nn.init.constant_(density.bias, -1.0)
    found = evaluate(task, network, "test")
    assert found["constant_predictions"] == 1.0
    assert found["psnr"] < 30
