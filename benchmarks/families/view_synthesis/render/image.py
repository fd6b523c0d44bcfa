"""Whole pictures: rendering one through a camera, and how far it is from the truth."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchmetrics.functional.image import structural_similarity_index_measure

from benchmarks.families.view_synthesis.render.rays import Camera, camera_rays
from benchmarks.families.view_synthesis.render.volume import RenderSettings, render_rays

SSIM_WINDOW = 11
"""Side in pixels of the window that SSIM compares; smaller pictures have none."""
LPIPS_WEIGHTS = "alexnet-owt-7be5be79.pth"
"""File of the network behind LPIPS in torch's hub folder; it is used if it is there and never fetched."""


@dataclass(frozen=True)
class Picture:
    """A rendered view.

    Attributes:
        colors: (height, width, 3) in [0, 1].
        depth: mean depth of what is seen, (height, width).
    """

    colors: Tensor
    depth: Tensor


@torch.no_grad()
def render_picture(
    model: nn.Module,
    camera: Camera,
    pose: Tensor,
    settings: RenderSettings,
    pixel_centre: float = 0.5,
    dual: bool = False,
    step: int = 1,
) -> dict[str, Picture]:
    """Render the pixels of a camera without randomness.

    Args:
        model, settings, dual: see `render_rays`.
        camera, pose, pixel_centre: see `camera_rays`.
        step: render only every `step`-th pixel of every `step`-th row, see `lattice`.

    Returns:
        "coarse", "fine" and "dual" as far as there are such.
    """
    pixels = torch.arange(camera.height * camera.width, device=pose.device).reshape(camera.height, camera.width)
    pixels = lattice(pixels, step)
    shape, pixels = pixels.shape, pixels.flatten()
    rays = camera_rays(camera, pose, pixels, pixel_centre)
    block = max(1, settings.chunk // (settings.coarse_samples + settings.fine_samples))
    blocks = [
        render_rays(model, rays[start : start + block], settings, dual=dual) for start in range(0, len(rays), block)
    ]
    return {
        level: Picture(
            torch.cat([part[level].colors for part in blocks]).reshape(*shape, 3).clamp(0, 1),
            torch.cat([part[level].depth for part in blocks]).reshape(shape),
        )
        for level in blocks[0]
    }


def lattice(picture: Tensor, step: int) -> Tensor:
    """Every `step`-th row and column of (height, width, …), from the middle of the first `step` on."""
    return picture[step // 2 :: step, step // 2 :: step]


def as_bytes(colors: Tensor) -> NDArray[np.uint8]:
    """Colours in [0, 1] as a picture of 8 bits a channel."""
    return (colors.cpu() * 255).round().to(torch.uint8).numpy()


def psnr(picture: Tensor, truth: Tensor) -> float:
    """Peak signal-to-noise ratio of colours in [0, 1] in dB: −10 log₁₀ of the mean squared error."""
    return float(-10 * torch.log10((picture.double() - truth.double()).square().mean()))


def ssim(picture: Tensor, truth: Tensor) -> float | None:
    """Structural similarity of two (height, width, 3) pictures in [0, 1]; None where its window does not fit in."""
    if min(picture.shape[:2]) < SSIM_WINDOW:
        return None
    value = structural_similarity_index_measure(_as_batch(picture), _as_batch(truth), data_range=1.0)
    assert isinstance(value, Tensor)
    return float(value)


def lpips(picture: Tensor, truth: Tensor) -> float | None:
    """Learned perceptual distance (AlexNet) of two pictures in [0, 1]; None where its weights are not at hand."""
    if find_spec("torchvision") is None or not Path(torch.hub.get_dir(), "checkpoints", LPIPS_WEIGHTS).exists():
        return None
    from torchmetrics.functional.image import learned_perceptual_image_patch_similarity

    value = learned_perceptual_image_patch_similarity(_as_batch(picture), _as_batch(truth), "alex", normalize=True)
    return float(value)


def _as_batch(picture: Tensor) -> Tensor:
    return picture.float().permute(2, 0, 1)[None]
