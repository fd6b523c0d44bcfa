"""Rendering of whole pictures, and the metrics PSNR, SSIM and LPIPS."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.families.view_synthesis.render.rays import Camera, camera_rays
from benchmarks.families.view_synthesis.render.volume import RenderSettings, render_rays

SSIM_WINDOW = 11
"""Side of the SSIM window in pixels; the metric is undefined for smaller pictures."""
LPIPS_WEIGHTS = "alexnet-owt-7be5be79.pth"
"""File of LPIPS's network in torch's hub folder; it is never downloaded."""


@dataclass(frozen=True)
class Picture:
    """Rendered view.

    Attributes:
        colors: (height, width, 3) in [0, 1].
        depth: expected depth of each pixel, (height, width).
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
    """Render the picture of a camera, deterministically.

    Args:
        model, settings, dual: see `render_rays`.
        camera, pose, pixel_centre: see `camera_rays`.
        step: render only every `step`-th pixel of every `step`-th row, see `subsample`.

    Returns:
        Level ("coarse", "fine", "dual", as far as the model has them) → picture.
    """
    pixels = torch.arange(camera.height * camera.width, device=pose.device).reshape(camera.height, camera.width)
    pixels = subsample(pixels, step)
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


def subsample(picture: Tensor, step: int) -> Tensor:
    """Return every `step`-th row and column of (height, width, …), starting at index `step // 2`."""
    return picture[step // 2 :: step, step // 2 :: step]


def as_bytes(colors: Tensor) -> NDArray[np.uint8]:
    """Convert colours in [0, 1] to 8 bits per channel."""
    return (colors.cpu() * 255).round().to(torch.uint8).numpy()


def psnr(picture: Tensor, truth: Tensor) -> float:
    """Return the peak signal-to-noise ratio in dB of colours in [0, 1]: −10 log₁₀ of the mean squared error."""
    return float(-10 * torch.log10((picture.double() - truth.double()).square().mean()))


def ssim(picture: Tensor, truth: Tensor) -> float | None:
    """Return the SSIM of two pictures (height, width, 3) in [0, 1]; None if a side is below `SSIM_WINDOW` pixels."""
    if min(picture.shape[:2]) < SSIM_WINDOW:
        return None
    from torchmetrics.functional.image import structural_similarity_index_measure  # training needs none

    value = structural_similarity_index_measure(_as_batch(picture), _as_batch(truth), data_range=1.0)
    assert isinstance(value, Tensor)
    return float(value)


def lpips(picture: Tensor, truth: Tensor) -> float | None:
    """Return the LPIPS distance (AlexNet) of two pictures in [0, 1]; None if torchvision or the weights are missing."""
    if find_spec("torchvision") is None or not Path(torch.hub.get_dir(), "checkpoints", LPIPS_WEIGHTS).exists():
        return None
    from torchmetrics.functional.image import learned_perceptual_image_patch_similarity

    value = learned_perceptual_image_patch_similarity(_as_batch(picture), _as_batch(truth), "alex", normalize=True)
    return float(value)


def _as_batch(picture: Tensor) -> Tensor:
    return picture.float().permute(2, 0, 1)[None]
