"""Released models against an independent forward pass in NumPy, and errors for other files."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import benchmarks.families.view_synthesis.models  # noqa: F401  (registers the models)
from benchmarks.commands import released as released_command
from benchmarks.errors import DataError
from benchmarks.families.view_synthesis import released
from benchmarks.registry import MODELS
from tests.conftest import Command

SHAPES = {
    "layer1": (128, 63),
    "layers_xyz.0": (128, 128),
    "layers_xyz.1": (128, 128),
    "layers_xyz.2": (128, 128),
    "fc_alpha": (1, 128),
    "fc_feat": (128, 128),
    "layers_dir.0": (64, 155),
    "fc_rgb": (3, 64),
}


def a_release() -> dict[str, dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    content = {}
    for level in ("coarse", "fine"):
        part = {}
        for name, (rows, columns) in SHAPES.items():
            part[f"{name}.weight"] = torch.randn(rows, columns, generator=generator) / columns**0.5
            part[f"{name}.bias"] = torch.randn(rows, generator=generator) / 10
        content[f"model_{level}_state_dict"] = part
    return content


def in_numpy(part: dict[str, torch.Tensor], position: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """One point through the released network, as its authors wrote it."""

    def encode(x: np.ndarray, frequencies: int) -> np.ndarray:
        parts = [x]
        for exponent in range(frequencies):
            parts += [np.sin(x * 2.0**exponent), np.cos(x * 2.0**exponent)]
        return np.concatenate(parts)

    def linear(name: str, x: np.ndarray) -> np.ndarray:
        return part[f"{name}.weight"].double().numpy() @ x + part[f"{name}.bias"].double().numpy()

    hidden = np.maximum(linear("layer1", encode(position, 10)), 0)
    for index in range(3):
        hidden = np.maximum(linear(f"layers_xyz.{index}", hidden), 0)
    feature = np.maximum(linear("fc_feat", hidden), 0)
    seen = np.maximum(linear("layers_dir.0", np.concatenate((feature, encode(direction, 4)))), 0)
    return np.concatenate((linear("fc_rgb", seen), linear("fc_alpha", hidden)))


def test_a_released_file_computes_what_its_network_did(tmp_path: Path) -> None:
    content = a_release()
    file = tmp_path / "lego.ckpt"
    torch.save({"iter": 5, **content}, file)
    model = MODELS.build("nerf_release")
    assert sum(parameter.numel() for parameter in model.coarse.parameters()) == 84_548
    released.load_released(file, model)
    positions = torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(1))
    directions = torch.nn.functional.normalize(torch.ones(2, 3) * torch.tensor([[1.0, -2, 0.5], [0, 1, 2]]), dim=1)
    for level in ("coarse", "fine"):
        with torch.no_grad():
            raw = model(level, positions, directions).numpy()
        for ray in range(2):
            for sample in range(3):
                point, direction = positions[ray, sample].double().numpy(), directions[ray].double().numpy()
                expected = in_numpy(content[f"model_{level}_state_dict"], point, direction)
                assert raw[ray, sample] == pytest.approx(expected, abs=2e-3)


def test_files_that_are_no_released_model(tmp_path: Path) -> None:
    model = MODELS.build("nerf_release")
    with pytest.raises(DataError, match="cannot be read: No such file"):
        released.load_released(tmp_path / "none.ckpt", model)
    text = tmp_path / "text.ckpt"
    text.write_text("not a checkpoint")
    with pytest.raises(DataError, match="is not a checkpoint of tensors"):
        released.load_released(text, model)
    lacking = a_release()
    del lacking["model_fine_state_dict"]["fc_rgb.bias"]
    for content, message in (({}, "has no entry model_coarse"), (lacking, "model_fine_state_dict has no fc_rgb.bias")):
        torch.save(content, text)
        with pytest.raises(DataError, match=message):
            released.load_released(text, model)
    wide = a_release()
    wide["model_coarse_state_dict"]["fc_rgb.weight"] = torch.zeros(3, 65)
    torch.save(wide, text)
    with pytest.raises(DataError, match="does not fit the released network"):
        released.load_released(text, model)


def test_the_command(tmp_path: Path, command: Command) -> None:
    file, written = tmp_path / "lego.ckpt", tmp_path / "out" / "lego.json"
    torch.save(a_release(), file)
    stand_in = ["task=blender_lego", "scale=smoke", "task.source=stand_in", "model.options.width=128"]
    code, out, err = command(
        released_command.main, str(file), *stand_in, "task.options.dual=true", "--out", str(written)
    )
    assert (code, err) == (0, "") and "test/psnr " in out and "test/psnr_dual" in out
    found = json.loads(written.read_text())
    assert f"test/psnr           {found['metrics']['test/psnr']:.4f}" in out
    assert found["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest() and found["data"]["kind"] == "stand-in"
    code, _, err = command(released_command.main)
    assert code == 2 and err.startswith("error: the following arguments are required: file") and err.count("\n") == 1
    code, _, err = command(released_command.main, str(file), *stand_in[1:])
    assert (code, err) == (2, "error: name the task with the test views, e.g. task=blender_lego\n")
    code, _, err = command(released_command.main, str(file), *stand_in, "model=nerf")
    assert (code, err) == (2, "error: released models are of model=nerf_release, got model=nerf\n")
    code, _, err = command(released_command.main, str(tmp_path / "none.ckpt"), *stand_in)
    assert code == 2 and err.startswith("error: ") and "cannot be read" in err
