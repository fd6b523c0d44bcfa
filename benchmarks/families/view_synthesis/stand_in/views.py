"""Stand-in: generated scenes, seen from a hemisphere (like the Blender scenes) or the front (like the LLFF scenes).

Cameras, pictures and splits depend on the requested size only, not on a run's seed.
"""

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.families.view_synthesis.scenes.blender import blender_scene
from benchmarks.families.view_synthesis.scenes.cache import cached, in_parallel
from benchmarks.families.view_synthesis.scenes.cameras import Array, hemisphere, look_at
from benchmarks.families.view_synthesis.scenes.images import prepare
from benchmarks.families.view_synthesis.scenes.llff import Capture, forward_scene, split_views
from benchmarks.families.view_synthesis.scenes.scene import Pictures, Scene, Views
from benchmarks.families.view_synthesis.stand_in.raytracer import Shape, depth_map, render
from benchmarks.families.view_synthesis.stand_in.still_life import furnished_room, still_life
from benchmarks.utils.paths import cache_dir, writable

WIDTH = 50
VIEWS = 40
"""Number of training views; validation and test have a fifth as many each."""

ANGLE = 0.6911112070083618
"""Horizontal angle of view of the Blender scenes, in radians."""

Floats = NDArray[np.floating[Any]]

_RADIUS = 4.0
_FRONT_FOCAL = 1.15  # focal length over width
_GOLDEN_ANGLE = math.pi * (3.0 - math.sqrt(5.0))
_NOTE = "balls and blocks, rendered by ray tracing"


def load_surround(name: str, width: int = WIDTH, views: int = VIEWS, white_background: bool = True) -> Scene:
    """Render the still life from a hemisphere of cameras.

    Args:
        name: name of the scene.
        width: width and height of the pictures in pixels.
        views: training views; validation and test have a fifth as many each.
        white_background: whether the background is white; black otherwise.
    """
    shapes = still_life()
    splits = {}
    for split, poses in surround_poses(views).items():
        images = _pictures(shapes, poses, (width, width), surround_focal(width), white_background)
        splits[split] = Views(images, torch.from_numpy(poses.astype(np.float32)))
    return blender_scene(name, "stand-in", splits, ANGLE, white_background, {}, _notes(width, width))


def load_front(name: str, width: int = WIDTH, views: int = VIEWS) -> Scene:
    """Render the still life in a room from the front, in normalised device coordinates.

    Args:
        name: name of the scene.
        width: width of the 4:3 pictures in pixels.
        views: training and test views together.
    """
    shapes, capture = furnished_room(), front_capture(width, views)
    height = round(capture.height)
    images = {
        split: _pictures(shapes, capture.poses[chosen], (height, width), capture.focal, False)
        for split, chosen in split_views(views).items()
    }
    return forward_scene(name, "stand-in", capture, images, {}, _notes(width, height))


def surround_poses(views: int) -> dict[str, Array]:
    """Return the poses of each split, (views, 3, 4), on the upper hemisphere: evenly spaced to train, else random."""
    index = np.arange(views) + 0.5
    directions = {"train": _directions(0.05 + 0.85 * index / views, _GOLDEN_ANGLE * index)}
    for number, split in enumerate(("valid", "test")):
        draw = np.random.default_rng(number).random((2, max(1, views // 5)))
        directions[split] = _directions(0.1 + 0.75 * draw[0], 2 * math.pi * draw[1])
    return {split: np.stack([hemisphere(d, _RADIUS) for d in chosen]) for split, chosen in directions.items()}


def front_capture(width: int, views: int) -> Capture:
    """Return cameras in front of the room that look at its centre, with their ranges of depths."""
    height, focal = round(0.75 * width), _FRONT_FOCAL * width
    draw = np.random.default_rng(2).uniform(-1.0, 1.0, (views, 3))
    positions = np.array([0.0, -3.7, 0.55]) + draw * np.array([0.6, 0.15, 0.35])
    target, up = np.array([0.0, 0.3, 0.0]), np.array([0.0, 0.0, 1.0])
    poses = np.stack([look_at(position, target, up) for position in positions])
    depths = [depth_map(furnished_room(), pose, 24, 32, _FRONT_FOCAL * 32) for pose in poses]
    bounds = np.array([(depth.min(), depth.max()) for depth in depths])
    return Capture(poses, bounds, height, width, focal)


def surround_focal(width: int) -> float:
    """Return the focal length of `load_surround` in pixels."""
    return 0.5 * width / math.tan(0.5 * ANGLE)


def samples_along(width: int) -> int:
    """Return the number of rays along a pixel's side; small pictures need more."""
    return max(2, min(4, 300 // width))


def _directions(height: Floats, angle: Floats) -> Array:
    """Return unit vectors (directions, 3) with z = `height` and azimuth `angle` in radians."""
    level = np.sqrt(1.0 - height**2)
    return np.stack([level * np.cos(angle), level * np.sin(angle), height], axis=1)


def _pictures(
    shapes: Sequence[Shape], poses: Array, size: tuple[int, int], focal: float, white_background: bool
) -> Pictures:
    """Render one view per pose, (views, height, width, 3), or take them from the cache if that is writable."""
    height, width = size

    def paint(pictures: Pictures) -> None:
        def view(index: int) -> None:
            seen = render(shapes, poses[index], height, width, focal, samples_along(width))
            # Rounded with its alpha channel first, so that a scene read from files has the same pictures.
            pictures[index] = prepare(seen.rgba(), height, width, white_background)

        in_parallel(view, len(poses), "rendering the stand-in")

    shape = (len(poses), height, width, 3)
    place = cache_dir() / "view_synthesis" / "stand_in"
    if not writable(place):
        pictures = np.empty(shape, dtype=np.uint8)
        paint(pictures)
        return pictures
    key = hashlib.sha256(_recipe() + poses.tobytes() + repr((shape, focal, white_background, len(shapes))).encode())
    return cached(place / f"{width}x{height}-{key.hexdigest()[:16]}.npy", shape, paint)


def _recipe() -> bytes:
    """Return the source of everything that determines the pictures, so that a changed renderer uses no old cache."""
    here = Path(__file__).parent
    sources = (here / "raytracer.py", here / "still_life.py", here / "views.py", here.parent / "scenes" / "images.py")
    return b"".join(source.read_bytes() for source in sources)


def _notes(width: int, height: int) -> dict[str, float | str]:
    return {"resolution": f"{width}x{height}", "scene": _NOTE}
