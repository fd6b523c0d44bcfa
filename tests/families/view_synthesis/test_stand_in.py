"""The rendered scenes: cameras, determinism, cache."""

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.families.view_synthesis.scenes.cameras import pose_error
from benchmarks.families.view_synthesis.stand_in import views as stand_in
from benchmarks.families.view_synthesis.stand_in.raytracer import depth_map, render
from benchmarks.families.view_synthesis.stand_in.still_life import furnished_room, still_life


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DFA_CACHE_DIR", str(tmp_path / "cache"))


def test_cameras_stand_on_the_upper_hemisphere_and_look_at_the_middle() -> None:
    splits = stand_in.surround_poses(40)
    assert {split: len(poses) for split, poses in splits.items()} == {"train": 40, "valid": 8, "test": 8}
    everything = np.concatenate(list(splits.values()))
    assert pose_error(everything) == ""
    np.testing.assert_allclose(np.linalg.norm(everything[:, :, 3], axis=1), 4.0)
    np.testing.assert_allclose(everything[:, :, 3], 4.0 * everything[:, :, 2], atol=1e-12)
    assert (everything[:, 2, 3] > 0).all()
    assert len(np.unique(everything.round(9), axis=0)) == 56


def test_everything_lies_between_near_and_far() -> None:
    scene = stand_in.load_surround("s", width=12, views=9)
    for poses in stand_in.surround_poses(9).values():
        for pose in poses:
            depth = depth_map(still_life(), pose, 24, 24, stand_in.surround_focal(24))
            seen = depth[np.isfinite(depth)]
            assert scene.near < seen.min() and seen.max() < scene.far


def test_the_still_life_is_in_the_picture_as_a_whole() -> None:
    scene = stand_in.load_surround("s", width=24, views=20)
    for views in scene.splits.values():
        images = np.asarray(views.images)
        edges = np.concatenate([images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]], axis=1)
        assert (edges == 255).mean() > 0.9
        assert (images < 250).any(axis=-1).mean() > 0.15


def test_the_room_fills_the_pictures_and_lies_behind_the_near_plane() -> None:
    scene = stand_in.load_front("s", width=16, views=17)
    assert scene.ndc and (scene.height, scene.width) == (12, 16)
    assert {split: len(views) for split, views in scene.splits.items()} == {"train": 14, "test": 3, "valid": 2}
    assert all((np.asarray(views.images).max(axis=-1) > 0).all() for views in scene.splits.values())
    # Scaled as the cameras were, every depth exceeds 1: 1 / 0.75 at the nearest.
    capture = stand_in.front_capture(16, 17)
    for pose in capture.poses:
        depth = depth_map(furnished_room(), pose, 24, 32, capture.focal * 32 / 16)
        assert depth.min() / (0.75 * capture.bounds.min()) > 1.3


def test_the_same_pictures_every_time_with_cache_and_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = stand_in.load_surround("s", width=10, views=9)
    assert isinstance(first.splits["train"].images, np.memmap)
    cached = stand_in.load_surround("s", width=10, views=9)
    read_only = tmp_path / "read-only"
    read_only.mkdir(mode=0o555)
    monkeypatch.setenv("DFA_CACHE_DIR", str(read_only))
    rendered = stand_in.load_surround("s", width=10, views=9)
    assert not isinstance(rendered.splits["train"].images, np.memmap)
    for split, views in first.splits.items():
        for other in (cached, rendered):
            np.testing.assert_array_equal(views.images, other.splits[split].images)
            assert torch.equal(views.poses, other.splits[split].poses)


def test_the_cache_tells_sizes_backgrounds_and_renderers_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    white = stand_in.load_surround("s", width=10, views=9).splits["train"].images
    black = stand_in.load_surround("s", width=10, views=9, white_background=False).splits["train"].images
    assert (white[:, 0, 0] == 255).all() and (black[:, 0, 0] == 0).all()
    monkeypatch.setattr(stand_in, "_recipe", lambda: b"another renderer")
    monkeypatch.setattr(stand_in, "render", lambda *arguments: render(still_life()[1:], *arguments[1:]))
    assert (stand_in.load_surround("s", width=10, views=9).splits["train"].images != white).any()


def test_resolutions_show_the_same_scene() -> None:
    fine = np.asarray(stand_in.load_surround("s", width=24, views=9).splits["train"].images, dtype=float)
    coarse = np.asarray(stand_in.load_surround("s", width=8, views=9).splits["train"].images, dtype=float)
    blocks = fine.reshape(9, 8, 3, 8, 3, 3).mean(axis=(2, 4))
    assert np.abs(blocks - coarse).mean() < 6.0
