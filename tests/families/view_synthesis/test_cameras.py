"""Poses against hand computation and the properties that define them."""

import numpy as np
import pytest

from benchmarks.families.view_synthesis.scenes.cameras import (
    average_pose,
    forward_facing,
    hemisphere,
    look_at,
    pose_error,
    recentre,
    spiral,
    turntable,
)


def some_poses(count: int = 7, seed: int = 0) -> np.ndarray:
    """Cameras that look roughly along +x of a tilted world."""
    draw = np.random.default_rng(seed)
    positions = draw.normal(0.0, 0.3, (count, 3)) + np.array([1.0, 2.0, 3.0])
    return np.stack([look_at(p, np.array([9.0, 4.0, 2.0]), np.array([0.1, 0.2, 1.0])) for p in positions])


def test_look_at_by_hand() -> None:
    """From (0, -5, 0) towards the origin with z up: right is +x, up is +z, backwards is -y."""
    pose = look_at(np.array([0.0, -5.0, 0.0]), np.zeros(3), np.array([0.0, 0.0, 1.0]))
    np.testing.assert_allclose(pose, [[1, 0, 0, 0], [0, 0, -1, -5], [0, 1, 0, 0]], atol=1e-12)


def test_turntable_circles_the_origin_at_one_height_and_looks_at_it() -> None:
    poses = turntable(frames=12, elevation=30.0, radius=4.0)
    assert poses.shape == (12, 3, 4) and pose_error(poses) == ""
    np.testing.assert_allclose(poses[:, 2, 3], 2.0)  # 4 sin 30°
    np.testing.assert_allclose(np.linalg.norm(poses[:, :, 3], axis=1), 4.0)
    # Looking at the origin: it lies on the viewing axis -z, 4 ahead.
    np.testing.assert_allclose(poses[:, :, 3] - 4.0 * poses[:, :, 2], 0.0, atol=1e-12)
    np.testing.assert_allclose(poses[:, 2, 0], 0.0, atol=1e-12)  # the horizon is level
    steps = poses[:, :2, 3] - np.roll(poses[:, :2, 3], 1, axis=0)
    np.testing.assert_allclose(np.linalg.norm(steps, axis=1), 2 * 4 * np.cos(np.pi / 6) * np.sin(np.pi / 12))


def test_average_after_recentring_is_the_identity() -> None:
    recentred = recentre(some_poses())
    np.testing.assert_allclose(average_pose(recentred), np.eye(3, 4), atol=1e-12)
    assert pose_error(recentred) == ""


def test_recentring_moves_all_cameras_rigidly() -> None:
    """Distances between cameras and their axes relative to each other stay."""
    before, after = some_poses(), recentre(some_poses())
    for one in range(len(before)):
        np.testing.assert_allclose(
            before[one, :, :3].T @ before[0, :, :3], after[one, :, :3].T @ after[0, :, :3], atol=1e-12
        )
        np.testing.assert_allclose(
            np.linalg.norm(before[one, :, 3] - before[0, :, 3]), np.linalg.norm(after[one, :, 3] - after[0, :, 3])
        )


def test_forward_facing_scales_the_nearest_depth_to_four_thirds() -> None:
    poses = some_poses()
    bounds = np.array([[3.0 + 0.1 * view, 20.0] for view in range(len(poses))])
    scaled, depths = forward_facing(poses, bounds)
    np.testing.assert_allclose(depths.min(), 1.0 / 0.75)
    np.testing.assert_allclose(depths, bounds / (0.75 * 3.0))
    distance = np.linalg.norm(poses[1, :, 3] - poses[0, :, 3])
    np.testing.assert_allclose(np.linalg.norm(scaled[1, :, 3] - scaled[0, :, 3]), distance / (0.75 * 3.0))


def test_spiral_looks_at_one_point_ahead_and_stays_near() -> None:
    poses, bounds = forward_facing(some_poses(20), np.tile([[3.0, 30.0]], (20, 1)))
    path = spiral(poses, bounds, frames=60)
    assert path.shape == (60, 3, 4) and pose_error(path) == ""
    radii = np.percentile(np.abs(poses[:, :, 3]), 90, axis=0)
    assert (np.abs(path[:, :, 3]) <= radii + 1e-9).all()
    np.testing.assert_allclose(path[0, :, 3], [radii[0], 0.0, 0.0], atol=1e-9)
    depth = 1.0 / (0.25 / (0.9 * bounds.min()) + 0.75 / (5.0 * bounds.max()))
    focus = np.array([0.0, 0.0, -depth])
    towards = (focus - path[:, :, 3]) / np.linalg.norm(focus - path[:, :, 3], axis=1, keepdims=True)
    np.testing.assert_allclose(-path[:, :, 2], towards, atol=1e-9)


@pytest.mark.parametrize("fault", ["nan", "stretched", "mirrored", "sheared"])
def test_improper_poses_are_found(fault: str) -> None:
    poses = np.stack([hemisphere(np.array([0.6, 0.0, 0.8]), 4.0)] * 3)
    assert pose_error(poses) == ""
    if fault == "nan":
        poses[1, 0, 3] = np.nan
    elif fault == "stretched":
        poses[1, :, :3] *= 1.1
    elif fault == "mirrored":
        poses[1, :, 0] *= -1
    else:
        poses[1, :, 0] += 0.2 * poses[1, :, 1]
    assert pose_error(poses).startswith("camera 1")
