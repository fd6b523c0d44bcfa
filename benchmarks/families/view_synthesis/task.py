"""Task of view synthesis: learn a scene from pictures with known cameras, evaluate it on held-out views."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.errors import ConfigError
from benchmarks.families.view_synthesis.data import SCENE_OF_TASK, load_scene
from benchmarks.families.view_synthesis.render.image import Picture, lpips, psnr, render_picture, ssim, subsample
from benchmarks.families.view_synthesis.render.rays import Rays, camera_rays
from benchmarks.families.view_synthesis.render.volume import DENSITIES, Draws, RenderSettings, render_rays
from benchmarks.registry import TASKS
from benchmarks.task import DataInfo, Task, constant_predictions, cut_rows
from benchmarks.utils.values import check_known, check_least

EPOCH_ITERATIONS = 1_000
"""Iterations per epoch; `trainer.steps` sets the length of a run."""
ALIGNMENT_RAYS = 64
"""Rays of the batch on which alignment is measured."""
ONE_COLOUR = 0.5 / 255
"""Largest difference between two pixels, in [0, 1], that counts as none."""


@dataclass(frozen=True)
class RayBatch:
    """Batch of rays.

    Attributes:
        rays: the rays.
        colors: their true colours, (rays, 3) in [0, 1].
        draws: random numbers for their samples.
    """

    rays: Rays
    colors: Tensor
    draws: Draws

    def __len__(self) -> int:
        return len(self.rays)

    def __getitem__(self, which: slice) -> "RayBatch":
        return RayBatch(self.rays[which], self.colors[which], self.draws[which])


class ViewSynthesis(Task):
    """Radiance fields of one scene; an iteration uses rays of one random training view.

    Args:
        name: name of the task, e.g. "blender_lego".
        scene, source, data_dir, download, width, allow_partial, stand_in_views: see `load_scene`.
        seed: determines views, rays and samples.
        rays: rays per iteration; 0 for all of the view.
        parts: number of equal batches that an iteration is divided into. With `trainer.accumulate` set to the same
            number they make one step with the same gradient in less memory.
        coarse_samples, fine_samples, chunk, density: see `RenderSettings`.
        noise: standard deviation of the noise added to the raw density in training.
        pixel_centre: see `camera_rays`.
        valid_views, test_views: number of evenly spaced views of these splits to evaluate on; 0 for all.
        dual: whether to evaluate the mean of both fields too, on the test split.
        pixel_step: evaluate only every `pixel_step`-th pixel in either direction, which estimates the PSNR of large
            pictures in a fraction of the time; SSIM and LPIPS are then left out.

    Raises:
        ConfigError: an option is out of range or does not fit the scene.
        DataError: see `load_scene`.
    """

    metric: ClassVar[str] = "psnr"

    def __init__(
        self,
        name: str,
        scene: str,
        *,
        seed: int,
        source: str,
        data_dir: Path,
        download: bool = False,
        width: int = 0,
        allow_partial: bool = False,
        stand_in_views: int = 40,
        rays: int = 1024,
        parts: int = 1,
        coarse_samples: int = 64,
        fine_samples: int = 128,
        chunk: int = 65_536,
        density: str = "relu",
        noise: float = 0.0,
        pixel_centre: float = 0.5,
        valid_views: int = 1,
        test_views: int = 0,
        dual: bool = False,
        pixel_step: int = 1,
    ) -> None:
        for option, value, least in (
            *(("parts", parts, 1), ("chunk", chunk, 1), ("width", width, 0), ("rays", rays, 0)),
            *(("coarse_samples", coarse_samples, 3 if fine_samples else 1), ("fine_samples", fine_samples, 0)),
            *(("valid_views", valid_views, 0), ("test_views", test_views, 0), ("noise", noise, 0)),
        ):
            check_least(f"task option {option}", value, least)
        check_known("task option density", density, tuple(DENSITIES))
        self.seed = seed
        self.scene = load_scene(
            scene,
            data_dir=data_dir,
            source=source,
            download=download,
            width=width,
            allow_partial=allow_partial,
            stand_in_views=stand_in_views,
        )
        height, width = self.scene.height, self.scene.width
        self.rays = rays or height * width
        if self.rays > height * width:
            raise ConfigError(f"task option rays is {rays}, but a view has {width} × {height} pixels")
        if self.rays % parts:
            raise ConfigError(f"task option parts must divide the {self.rays} rays of an iteration, got {parts}")
        side = min(height, width)
        if not 1 <= pixel_step <= side:
            raise ConfigError(
                f"task option pixel_step must be between 1 and the {side} pixels of a view's side, got {pixel_step}"
            )
        self.parts, self.noise, self.pixel_centre, self.dual = parts, noise, pixel_centre, dual
        self.pixel_step = pixel_step
        near, far, white = self.scene.near, self.scene.far, self.scene.white_background
        self.settings = RenderSettings(near, far, white, coarse_samples, fine_samples, chunk, density)
        splits = self.scene.splits
        self.chosen = {
            "valid": _evenly_spaced(len(splits["valid"]), valid_views),
            "test": _evenly_spaced(len(splits["test"]), test_views),
        }
        self.device = torch.device("cpu")
        self.poses = {split: views.poses for split, views in splits.items()}
        self.pictures: Any = splits["train"].images
        self.info = DataInfo(name, self.scene.kind, self.scene.checksums, self.scene.notes)

    def model_options(self) -> dict[str, Any]:
        """Return no options: models of this family do not depend on the scene."""
        return {}

    def to(self, device: torch.device) -> None:
        """Move poses to `device`, and the training pictures too if it is not the CPU."""
        self.device = device
        self.poses = {split: poses.to(device) for split, poses in self.poses.items()}
        if device.type != "cpu":
            self.pictures = torch.from_numpy(np.array(self.pictures)).to(device)

    def steps_per_epoch(self) -> int:
        """Return the number of batches of `EPOCH_ITERATIONS` iterations."""
        return EPOCH_ITERATIONS * self.parts

    def train_batches(self, epoch: int, skip: int = 0) -> Iterator[RayBatch]:
        """Yield the batches of an epoch, `parts` per iteration, without the first `skip`."""
        for iteration in range(skip // self.parts, EPOCH_ITERATIONS):
            batch = self.draw_batch(epoch, iteration)
            size = self.rays // self.parts
            for part in range(max(0, skip - iteration * self.parts), self.parts):
                yield batch[part * size : (part + 1) * size]

    def draw_batch(self, epoch: int, iteration: int) -> RayBatch:
        """Draw rays of a random training view, as a function of seed, epoch and iteration alone."""
        words = np.random.SeedSequence([self.seed, epoch, iteration])
        numbers = np.random.default_rng(words)
        view = int(numbers.integers(len(self.poses["train"])))
        total = self.scene.height * self.scene.width
        every = self.rays == total
        pixels = np.arange(total) if every else numbers.choice(total, self.rays, replace=False, shuffle=False)
        where = torch.from_numpy(pixels).to(self.device)
        shown = self.pictures[view].reshape(total, 3)
        picked = shown[where] if isinstance(shown, Tensor) else torch.from_numpy(shown[pixels])
        colors = picked.float() / 255
        rays = camera_rays(self.scene, self.poses["train"][view], where, self.pixel_centre)
        generator = torch.Generator(self.device).manual_seed(int(numbers.integers(2**62)))
        return RayBatch(rays, colors, Draws.draw(self.rays, self.settings, self.noise, generator))

    def loss(self, model: nn.Module, batch: RayBatch) -> Tensor:
        """Return the mean squared error of the coarse render plus that of the fine one."""
        renders = render_rays(model, batch.rays, self.settings, batch.draws)
        losses = [F.mse_loss(render.colors, batch.colors) for render in renders.values()]
        return torch.stack(losses).sum()

    def evaluate(self, model: nn.Module, split: str) -> dict[str, float]:
        """Return means over views: `psnr` (dB), `ssim` and `lpips` of the best render, `psnr_<level>` of the others.

        The best render is the fine one, or the coarse one of a model without it. Predictions are constant if all its
        pixels have the same colour in 8 bits, as where the scene is empty.
        """
        found: dict[str, list[float]] = {}
        extremes: list[Tensor] = []
        for view in self.chosen[split]:
            pictures = self.render(
                model, self.poses[split][view], dual=self.dual and split == "test", step=self.pixel_step
            )
            truth = subsample(self.truth(split, view), self.pixel_step)
            best = pictures["fine" if "fine" in pictures else "coarse"].colors.cpu()
            extremes += best.flatten(0, -2).aminmax(dim=0)
            measured: dict[str, float | None] = {"psnr": psnr(best, truth)}
            if self.pixel_step == 1:
                measured |= {"ssim": ssim(best, truth), "lpips": lpips(best, truth)}
            if "fine" in pictures:
                others = [level for level in pictures if level != "fine"]
                measured |= {f"psnr_{level}": psnr(pictures[level].colors.cpu(), truth) for level in others}
            for name, value in measured.items():
                if value is not None:
                    found.setdefault(name, []).append(value)
        means = {name: float(np.mean(values)) for name, values in found.items()}
        return means | constant_predictions(torch.stack(extremes), ONE_COLOUR)

    def alignment_loss(self, model: nn.Module) -> Tensor:
        """Return the loss of a fixed batch of 64 rays, evenly spaced over the view if batches are whole views."""
        batch = self.draw_batch(0, 0)
        whole = self.rays == self.scene.height * self.scene.width
        step = max(1, len(batch) // ALIGNMENT_RAYS) if whole else 1
        return self.loss(model, batch[: step * ALIGNMENT_RAYS : step])

    def share(self, batch: RayBatch, rank: int, world: int) -> tuple[RayBatch, float]:
        """Return the rays of process `rank` and their share of the batch."""
        rays, weight = cut_rows(len(batch), rank, world)
        return batch[rays], weight

    def render(self, model: nn.Module, pose: Tensor, dual: bool = False, step: int = 1) -> dict[str, Picture]:
        """Render the view of a camera with the given pose, (3, 4); see `render_picture`."""
        model.eval()
        return render_picture(model, self.scene, pose.to(self.device), self.settings, self.pixel_centre, dual, step)

    def truth(self, split: str, view: int) -> Tensor:
        """Return the picture of a view, (height, width, 3) in [0, 1], on the CPU."""
        return torch.from_numpy(np.array(self.scene.splits[split].images[view])).float() / 255


def _evenly_spaced(views: int, wanted: int) -> list[int]:
    """Return the indices of `wanted` evenly spaced views; all of them for 0."""
    if wanted == 0 or wanted >= views:
        return list(range(views))
    return [int(view) for view in np.linspace(0, views - 1, wanted + 2)[1:-1].round()]


for _name, _scene in SCENE_OF_TASK.items():
    TASKS.register(_name)(partial(ViewSynthesis, _name, _scene))
