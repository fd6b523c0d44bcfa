"""Camera poses: where cameras stand, paths that they follow, the normalisation of forward-facing captures.

A pose is camera-to-world, (3, 4): the camera's x (right), y (up) and z axis (backwards), and its position.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_ORTHONORMAL_WITHIN = 1e-2


def look_at(position: Array, target: Array, up: Array) -> Array:
    """Pose of a camera at `position` that looks at `target`, its y axis as close to `up` as can be, (3, 4)."""
    return _frame(position, position - target, up)


def hemisphere(direction: Array, radius: float) -> Array:
    """Pose of a camera that looks at the origin from `direction` (a unit vector, z up) at distance `radius`."""
    return look_at(radius * direction, np.zeros(3), np.array([0.0, 0.0, 1.0]))


def turntable(frames: int = 40, elevation: float = 30.0, radius: float = 4.0) -> Array:
    """Once around the origin at `elevation` degrees above its horizon, (frames, 3, 4)."""
    angles = np.arange(frames) * (2 * np.pi / frames)
    height = np.full(frames, np.radians(elevation))
    directions = np.stack([np.cos(height) * np.cos(angles), np.cos(height) * np.sin(angles), np.sin(height)], axis=1)
    return np.stack([hemisphere(direction, radius) for direction in directions])


def average_pose(poses: Array) -> Array:
    """Mean position, mean viewing direction, and the up axis closest to the mean one, (3, 4)."""
    return _frame(poses[:, :, 3].mean(axis=0), poses[:, :, 2].sum(axis=0), poses[:, :, 1].sum(axis=0))


def recentre(poses: Array) -> Array:
    """The same cameras in the frame of their average: afterwards the average pose is the identity, (views, 3, 4)."""
    average = average_pose(poses)
    rotation, centre = average[:, :3], average[:, 3:]
    turned = poses.copy()
    turned[:, :, 3:] -= centre
    moved: Array = rotation.T @ turned
    return moved


def forward_facing(poses: Array, bounds: Array, margin: float = 0.75) -> tuple[Array, Array]:
    """Poses and bounds as normalised device coordinates want them (Mildenhall et al., 2020).

    The unit of length becomes `margin` times the nearest depth, so that everything lies behind the near plane z = -1;
    then poses are recentred.

    Args:
        poses: (views, 3, 4).
        bounds: nearest and farthest depth that each view sees, (views, 2).
    """
    scale = 1.0 / (margin * bounds.min())
    scaled = poses.copy()
    scaled[:, :, 3] *= scale
    return recentre(scaled), bounds * scale


def spiral(poses: Array, bounds: Array, frames: int = 120, turns: int = 2) -> Array:
    """A path through recentred forward-facing cameras, (frames, 3, 4).

    It winds around the average camera within the 90th percentile of the cameras' offsets and looks at one point, whose
    depth lies between the nearest and the farthest, weighted by inverse depth (a quarter to three quarters).
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


def improper(poses: Array) -> str:
    """What is wrong with poses, or "": they must be finite, with right-handed orthonormal axes."""
    for index, pose in enumerate(poses):
        axes = pose[:, :3]
        if not np.isfinite(pose).all():
            return f"camera {index} has a pose that is not finite"
        # A negated comparison, so that an overflow counts as wrong too.
        if not np.abs(axes.T @ axes - np.eye(3)).max() < _ORTHONORMAL_WITHIN or np.linalg.det(axes) < 0:
            return f"camera {index} has axes that are no rotation"
    return ""


def _frame(position: Array, backwards: Array, up: Array) -> Array:
    z = backwards / np.linalg.norm(backwards)
    x = np.cross(up, z)
    x /= np.linalg.norm(x)
    return np.stack([x, np.cross(z, x), z, position], axis=1)
