"""The task: batches as pure functions, loss and metrics by hand, resuming, learning a scene under each rule."""

import math
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import benchmarks.families.view_synthesis.models  # noqa: F401  (registers the models)
from benchmarks.config import compose_config, resolve
from benchmarks.errors import ConfigError
from benchmarks.families.view_synthesis.render.image import psnr, ssim
from benchmarks.families.view_synthesis.render.rays import camera_rays
from benchmarks.families.view_synthesis.task import RayBatch, ViewSynthesis, _evenly_spaced
from benchmarks.registry import MODELS, TASKS
from benchmarks.run.execute import execute
from benchmarks.run.records import RunFolder


def build(name: str = "blender_lego", **options: Any) -> ViewSynthesis:
    small = {"width": 12, "stand_in_views": 9, "rays": 20, "coarse_samples": 4, "fine_samples": 4}
    defaults = {"seed": 0, "source": "stand_in", "data_dir": Path("nowhere")}
    task = TASKS.build(name, **{**defaults, **small, **options})
    assert isinstance(task, ViewSynthesis)
    return task


class Grey(nn.Module):
    """Field of constant density and colour, opaque."""

    def __init__(self, shade: float) -> None:
        super().__init__()
        self.shade = nn.Parameter(torch.tensor(math.log(shade / (1 - shade))))

    def forward(self, level: str, positions: Tensor, directions: Tensor) -> Tensor:
        color = self.shade.expand(*positions.shape[:2], 3)
        return torch.cat((color, torch.full_like(positions[..., :1], 1e4)), dim=-1)


def equal(one: Tensor | None, other: Tensor | None) -> bool:
    """Return whether both are None, or both hold the same numbers."""
    if one is None or other is None:
        assert one is other
        return True
    return torch.equal(one, other)


def same(one: RayBatch, other: RayBatch) -> bool:
    pairs: list[tuple[Tensor | None, Tensor | None]]
    pairs = [(one.colors, other.colors), (one.rays.origins, other.rays.origins)]
    pairs += [(one.rays.directions, other.rays.directions), (one.draws.stratified, other.draws.stratified)]
    pairs += [(one.draws.importance, other.draws.importance), (one.draws.fine_noise, other.draws.fine_noise)]
    return all(equal(a, b) for a, b in pairs)


def test_batches_are_a_pure_function_of_seed_and_place() -> None:
    task, again, other = build(noise=1.0), build(noise=1.0), build(noise=1.0, seed=1)
    first = list(islice(task.train_batches(1), 3))
    assert all(same(a, b) for a, b in zip(first, islice(again.train_batches(1), 3), strict=True))
    assert not same(first[0], next(iter(other.train_batches(1)))) and not same(first[0], first[1])
    assert not same(first[0], next(iter(task.train_batches(2))))
    assert same(first[2], next(iter(task.train_batches(1, skip=2))))


@pytest.mark.parametrize("rays", [0, 100])
def test_alignment_is_measured_on_rays_from_all_over_a_view(rays: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a batch is the whole view in order, whose first 64 pixels are the top of the picture."""
    task = build(rays=rays)
    seen: list[RayBatch] = []
    monkeypatch.setattr(task, "loss", lambda model, batch: seen.append(batch))
    task.alignment_loss(nn.Identity())
    every = task.draw_batch(0, 0).rays.directions
    place = {tuple(direction.tolist()): index for index, direction in enumerate(every)}
    places = [place[tuple(direction.tolist())] for direction in seen[0].rays.directions]
    assert len(set(places)) == 64
    assert places == list(range(0, 128, 2)) if rays == 0 else places == list(range(64))


def importance(batch: RayBatch) -> Tensor:
    assert batch.draws.importance is not None
    return batch.draws.importance


def test_parts_cut_an_iteration_and_are_found_again_when_skipping() -> None:
    whole, parts = build(), build(parts=4)
    assert parts.steps_per_epoch() == 4 * whole.steps_per_epoch()
    batch = next(iter(whole.train_batches(1)))
    cut = list(islice(parts.train_batches(1), 9))
    assert [len(part) for part in cut] == [5] * 9
    assert torch.equal(torch.cat([part.colors for part in cut[:4]]), batch.colors)
    assert torch.equal(torch.cat([importance(part) for part in cut[:4]]), importance(batch))
    for skip in (1, 4, 7):
        assert same(cut[skip], next(iter(parts.train_batches(1, skip=skip))))


def test_rays_have_the_colours_of_their_pixels() -> None:
    task = build(rays=0)
    batch = next(iter(task.train_batches(1)))
    images = np.asarray(task.scene.splits["train"].images)
    view = next(v for v in range(9) if np.allclose(images[v].reshape(-1, 3) / 255, batch.colors.numpy(), atol=1e-6))
    expected = camera_rays(task.scene, task.scene.splits["train"].poses[view], torch.arange(144))
    assert torch.equal(batch.rays.directions, expected.directions)
    few = next(iter(build(rays=50).train_batches(1)))
    assert len(np.unique(few.rays.directions.numpy(), axis=0)) == 50, "no pixel twice"


def test_every_view_and_pixel_is_drawn() -> None:
    task = build(rays=140)
    batches = list(islice(task.train_batches(1), 60))
    origins = np.unique(np.concatenate([batch.rays.origins[:1].numpy() for batch in batches]), axis=0)
    assert len(origins) == 9
    directions = np.unique(np.concatenate([batch.rays.directions.numpy() for batch in batches]), axis=0)
    assert len(directions) == 9 * 144


def test_loss_and_metrics_of_a_uniform_picture_by_hand() -> None:
    task = build(dual=True)
    model = Grey(0.25)
    batch = next(iter(task.train_batches(1)))
    error = (batch.colors.double() - 0.25).square().mean().item()
    assert task.loss(model, batch).item() == pytest.approx(2 * error, rel=1e-4), "coarse and fine"
    with torch.no_grad():
        metrics = task.evaluate(model, "test")
    pictures = np.asarray(task.scene.splits["test"].images) / 255
    each = [-10 * math.log10(((picture - 0.25) ** 2).mean()) for picture in pictures]
    assert metrics["psnr"] == metrics["psnr_coarse"] == pytest.approx(np.mean(each), abs=1e-4)
    assert metrics["psnr_dual"] == pytest.approx(metrics["psnr"]) and -1 <= metrics["ssim"] <= 1
    assert "psnr_dual" not in task.evaluate(model, "valid")


def test_without_a_fine_field_the_coarse_one_counts() -> None:
    task = build("tiny_nerf_lego", fine_samples=0)
    metrics = task.evaluate(MODELS.build("tiny_nerf", widths=(8,)), "test")
    assert "psnr" in metrics and "psnr_coarse" not in metrics


def test_every_third_pixel_alone_can_be_looked_at() -> None:
    task = build(pixel_step=3)
    torch.manual_seed(0)
    model = MODELS.build("nerf_release", width=8)
    whole = [task.render(model, task.poses["test"][view])["fine"].colors for view in task.chosen["test"]]
    truth = [task.truth("test", view) for view in task.chosen["test"]]
    each = [psnr(one[1::3, 1::3], other[1::3, 1::3]) for one, other in zip(whole, truth, strict=True)]
    metrics = task.evaluate(model, "test")
    assert metrics["psnr"] == pytest.approx(np.mean(each), abs=1e-4)
    assert whole[0].std() > 1e-3 and "ssim" not in metrics


def test_psnr_and_ssim_of_known_pictures() -> None:
    truth = torch.rand(16, 16, 3, generator=torch.Generator().manual_seed(0))
    assert psnr(truth + 0.1, truth) == pytest.approx(20.0, abs=1e-4)
    assert ssim(truth, truth) == pytest.approx(1.0) and ssim(truth[:8], truth[:8]) is None
    negative = ssim(1 - truth, truth)
    assert negative is not None and negative < 0


def test_evaluated_views_are_spread_evenly() -> None:
    assert _evenly_spaced(10, 0) == list(range(10)) == _evenly_spaced(10, 12)
    assert _evenly_spaced(10, 1) in ([4], [5]) and _evenly_spaced(9, 2) == [3, 5]
    assert len(set(_evenly_spaced(200, 25))) == 25


def test_forward_facing_scenes_are_rendered_in_ndc() -> None:
    task = build("llff_fern")
    assert task.scene.ndc and (task.settings.near, task.settings.far) == (0.0, 1.0)
    batch = next(iter(task.train_batches(1)))
    assert torch.allclose(batch.rays.origins[:, 2], torch.full((20,), -1.0), atol=1e-5)
    assert torch.allclose(batch.rays.view.norm(dim=1), torch.ones(20))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rays": 145}, "task option rays is 145, but a view has 12 × 12 pixels"),
        ({"parts": 3}, "task option parts must divide the 20 rays of an iteration, got 3"),
        ({"parts": 0}, "task option parts must be at least 1, got 0"),
        ({"coarse_samples": 2}, "task option coarse_samples must be at least 3, got 2"),
        ({"noise": -1.0}, "task option noise must be at least 0, got -1"),
        ({"pixel_step": 0}, "task option pixel_step must be between 1 and the 12 pixels of a view's side, got 0"),
        ({"pixel_step": 13}, "task option pixel_step must be between 1 and the 12 pixels of a view's side, got 13"),
        ({"test_views": -1}, "task option test_views must be at least 0, got -1"),
    ],
)
def test_impossible_options_are_told(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(**options)


def test_a_scene_of_which_nothing_is_left_out_takes_no_option_for_it() -> None:
    with pytest.raises(ConfigError, match="allow_partial is of NeRF-Synthetic's scenes alone, and 'fern' is none of"):
        build("llff_fern", allow_partial=True)
    assert build("blender_lego", allow_partial=True).info.name == "blender_lego"


def overrides(rule: str, place: Path, *more: str) -> list[str]:
    chosen = ["task=tiny_nerf_lego", "model=tiny_nerf", f"rule={rule}", "scale=mini", "task.source=stand_in"]
    size = ["task.options.width=16", "task.options.coarse_samples=16", "task.options.parts=1"]
    return [*chosen, *size, f"run.results_dir={place}", "run.wandb=disabled", "run.progress=false", *more]


def test_bp_learns_the_stand_in_best_and_shallow_least(tmp_path: Path) -> None:
    """Two hundred iterations at 16 × 16."""
    found = {}
    for rule in ("bp", "dfa", "shallow"):
        config = resolve(compose_config(overrides(rule, tmp_path, "trainer.steps=200", "trainer.evaluate_every=100")))
        record = execute(config)
        assert record["status"] == "done", record["reason"]
        found[rule] = record["metrics"]["test/psnr"]
    assert found["bp"] > found["dfa"] + 2 and found["dfa"] > found["shallow"] + 0.6, found


def test_a_run_that_is_cut_off_goes_on_to_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    more = ["trainer.steps=9", "trainer.evaluate_every=3", "run.checkpoint_seconds=0", "task.options.parts=2"]
    whole = resolve(compose_config(overrides("dfa", tmp_path / "whole", *more)))
    expected = execute(whole)["metrics"]

    class CutOff(BaseException):
        """Simulated kill, which no handler of the runner catches."""

    genuine, calls = ViewSynthesis.loss, []

    def until_the_eleventh(self: ViewSynthesis, model: nn.Module, batch: RayBatch) -> Tensor:
        calls.append(1)
        if len(calls) == 11:
            raise CutOff
        return genuine(self, model, batch)

    cut = resolve(compose_config(overrides("dfa", tmp_path / "cut", *more)))
    monkeypatch.setattr(ViewSynthesis, "loss", until_the_eleventh)
    with pytest.raises(CutOff):
        execute(cut)
    monkeypatch.setattr(ViewSynthesis, "loss", genuine)
    assert RunFolder.of(cut).checkpoint.exists()
    assert execute(cut)["metrics"] == expected
