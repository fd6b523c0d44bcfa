"""Camera poses: construction, video paths, and the normalisation of forward-facing captures.

A pose is camera-to-world, (3, 4): the columns are the camera's x (right), y (up) and z axis (backwards), and its
position.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_ORTHONORMAL_WITHIN = 1e-2


def look_at(position: Array, target: Array, up: Array) -> Array:
    """Return the pose (3, 4) of a camera at `position` that looks at `target`; its y axis is closest to `up`."""
    return _frame(position, position - target, up)


def hemisphere(direction: Array, radius: float) -> Array:
    """Return the pose (3, 4) of a camera at `radius` · `direction` (a unit vector, z up) that looks at the origin."""
    return look_at(radius * direction, np.zeros(3), np.array([0.0, 0.0, 1.0]))


def turntable(frames: int = 40, elevation: float = 30.0, radius: float = 4.0) -> Array:
    """Return poses on a circle around the origin, `elevation` degrees above the horizon, (frames, 3, 4)."""
    angles = np.arange(frames) * (2 * np.pi / frames)
    height = np.full(frames, np.radians(elevation))
    directions = np.stack([np.cos(height) * np.cos(angles), np.cos(height) * np.sin(angles), np.sin(height)], axis=1)
    return np.stack([hemisphere(direction, radius) for direction in directions])


def average_pose(poses: Array) -> Array:
    """Return the pose (3, 4) with the mean position and viewing direction, and the up axis closest to the mean one."""
    return _frame(poses[:, :, 3].mean(axis=0), poses[:, :, 2].sum(axis=0), poses[:, :, 1].sum(axis=0))


def recentre(poses: Array) -> Array:
    """Return the poses in the frame of their average, (views, 3, 4): the new average pose is the identity."""
    average = average_pose(poses)
    rotation, centre = average[:, :3], average[:, 3:]
    turned = poses.copy()
    turned[:, :, 3:] -= centre
    moved: Array = rotation.T @ turned
    return moved


def forward_facing(poses: Array, bounds: Array, margin: float = 0.75) -> tuple[Array, Array]:
    """Rescale and recentre poses for normalised device coordinates (Mildenhall et al., 2020).

    The unit of length becomes `margin` times the nearest depth, so that the whole scene lies behind the near plane
    z = -1; then poses are recentred.

    Args:
        poses: (views, 3, 4).
        bounds: nearest and farthest depth of each view, (views, 2).
        margin: depth of the near plane as a share of the nearest depth.

    Returns:
        Poses (views, 3, 4) and bounds (views, 2) in the new unit.
    """
    scale = 1.0 / (margin * bounds.min())
    scaled = poses.copy()
    scaled[:, :, 3] *= scale
    return recentre(scaled), bounds * scale


def spiral(poses: Array, bounds: Array, frames: int = 120, turns: int = 2) -> Array:
    """Return poses on a spiral around the average of forward-facing cameras, (frames, 3, 4).

    The radii are the 90th percentile of the cameras' offsets. All frames look at one point, whose inverse depth is a
    weighted mean (1 : 3) of the inverse nearest and farthest depth.

    Args:
        poses: recentred poses, (views, 3, 4).
        bounds: nearest and farthest depth of each view, (views, 2).
        frames: number of poses.
        turns: revolutions.
    """
    nearest, farthest = 0.9 * bounds.min(), 5.0 * bounds.max()
    depth = 1.0 / (0.25 / nearest + 0.75 / farthest)
    radii = np.percentile(np.abs(poses[:, :, 3]), 90, axis=0)
    average = average_pose(poses)
    up = poses[:, :, 1].sum(axis=0)
    focus = average[:, 3] - depth * average[:, 2]
    angles = np.arange(frames) * (2 * np.pi * turns / frames)
    offsets = np.stack([np.cos(angles), -np.sin(angles), -np.sin(angles / 2)], axis=1) * radii
    return np.stack([look_at(average[:, :3] @ offset + average[:, 3], focus, up) for offset in offsets])


def pose_error(poses: Array) -> str:
    """Return why poses are invalid, or "": they must be finite, with right-handed orthonormal axes."""
    for index, pose in enumerate(poses):
        axes = pose[:, :3]
        if not np.isfinite(pose).all():
            return f"camera {index} has a pose that is not finite"
        # Negated, so that NaN from an overflow is refused too.
        if not np.abs(axes.T @ axes - np.eye(3)).max() < _ORTHONORMAL_WITHIN or np.linalg.det(axes) < 0:
            return f"camera {index} has axes that are no rotation"
    return ""


def _frame(position: Array, backwards: Array, up: Array) -> Array:
    z = backwards / np.linalg.norm(backwards)
    x = np.cross(up, z)
    x /= np.linalg.norm(x)
    return np.stack([x, np.cross(z, x), z, position], axis=1)
