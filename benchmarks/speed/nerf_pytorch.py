"""Training step of the public nerf-pytorch, imported from a copy of its sources, in the paper's setting."""

import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable
from contextlib import redirect_stdout
from importlib import import_module
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from benchmarks.errors import ConfigError

LOADERS = {
    "load_llff": "load_llff_data",
    "load_deepvoxels": "load_dv_data",
    "load_blender": "load_blender_data",
    "load_LINEMOD": "load_LINEMOD_data",
}
"""Data-loading modules of nerf-pytorch → function imported from each; stubbed, because they need further packages."""
WIDTH, FOCAL, NEAR, FAR = 100, 138.9, 2.0, 6.0


def nerf_pytorch(folder: Path, rays: int, device: str) -> Callable[[], None]:
    """Return one step of nerf-pytorch's training loop: random rays, render, two mean squared errors, backward, Adam.

    Args:
        folder: folder that holds `run_nerf.py`.
        rays: rays per step; 0 for 1,024.
        device: "cpu" or "cuda".

    Raises:
        ConfigError: `run_nerf.py` is missing or cannot be imported.
    """
    if not (folder / "run_nerf.py").is_file():
        raise ConfigError(f"'{folder}' does not hold nerf-pytorch: run_nerf.py is missing")
    sys.path.insert(0, str(folder.resolve()))
    for name, function in LOADERS.items():
        sys.modules.setdefault(name, ModuleType(name)).__dict__.setdefault(function, None)
    try:
        program: Any = import_module("run_nerf")
    except ImportError as error:
        raise ConfigError(f"nerf-pytorch cannot be imported from '{folder}': {error}") from None
    finally:
        sys.path.pop(0)
    program.device = torch.device(device)
    with tempfile.TemporaryDirectory() as place, redirect_stdout(StringIO()):
        (Path(place) / "bench").mkdir()
        arguments, _, _, parameters, optimizer = program.create_nerf(_settings(place))
    count = rays or 1024
    generator = torch.Generator(device).manual_seed(0)
    pose = torch.tensor([[1.0, 0, 0, 0], [0, 0, -1, -4], [0, 1, 0, 0]], device=device)
    matrix = [[FOCAL, 0, 0.5 * WIDTH], [0, FOCAL, 0.5 * WIDTH], [0, 0, 1]]
    origins, directions = (part.reshape(-1, 3) for part in program.get_rays(WIDTH, WIDTH, matrix, pose))

    def step() -> None:
        chosen = torch.randperm(len(origins), generator=generator, device=device)[:count]
        target = torch.rand(count, 3, generator=generator, device=device)
        batch = torch.stack((origins[chosen], directions[chosen]))
        color, _, _, extras = program.render(
            WIDTH, WIDTH, matrix, chunk=32 * 1024, rays=batch, retraw=True, near=NEAR, far=FAR, **arguments
        )
        optimizer.zero_grad()
        loss = program.img2mse(color, target) + program.img2mse(extras["rgb0"], target)
        loss.backward()
        optimizer.step()

    assert parameters
    return step


def _settings(place: str) -> Namespace:
    """Return nerf-pytorch's command-line options for NeRF-Synthetic with the paper's 64 + 128 samples."""
    network = {"netdepth": 8, "netwidth": 256, "netdepth_fine": 8, "netwidth_fine": 256, "netchunk": 64 * 1024}
    encoding = {"multires": 10, "multires_views": 4, "i_embed": 0, "use_viewdirs": True}
    sampling = {"N_samples": 64, "N_importance": 128, "perturb": 1.0, "lindisp": False, "raw_noise_std": 0.0}
    scene = {"dataset_type": "blender", "no_ndc": True, "white_bkgd": True}
    files = {"basedir": place, "expname": "bench", "ft_path": None, "no_reload": True}
    return Namespace(**network, **encoding, **sampling, **scene, **files, lrate=5e-4)
