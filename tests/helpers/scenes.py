"""Stand-in scenes as files in the formats of the published ones."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.families.view_synthesis.scenes.blender import SPLITS, list_file
from benchmarks.families.view_synthesis.scenes.llff import CAMERAS
from benchmarks.families.view_synthesis.scenes.scene import Pictures
from benchmarks.families.view_synthesis.stand_in.raytracer import render
from benchmarks.families.view_synthesis.stand_in.still_life import furnished_room, still_life
from benchmarks.families.view_synthesis.stand_in.views import (
    ANGLE,
    VIEWS,
    WIDTH,
    front_capture,
    samples_along,
    surround_focal,
    surround_poses,
)


def write_picture(path: Path, picture: Pictures) -> None:
    """Write (height, width, 3) RGB or (height, width, 4) RGBA as PNG."""
    Image.fromarray(picture).save(path, format="PNG")


def write_blender(folder: Path, width: int = WIDTH, views: int = VIEWS) -> None:
    """Write the scene of `load_surround` in Blender format: RGBA pictures and lists of frames."""
    for split, poses in surround_poses(views).items():
        (folder / SPLITS[split]).mkdir(parents=True)
        frames = []
        for number, pose in enumerate(poses):
            name = f"./{SPLITS[split]}/r_{number}"
            picture = render(still_life(), pose, width, width, surround_focal(width), samples_along(width)).rgba()
            write_picture(folder / f"{name}.png", picture)
            matrix = [*pose.tolist(), [0.0, 0.0, 0.0, 1.0]]
            frames.append({"file_path": name, "transform_matrix": matrix})
        content = {"camera_angle_x": ANGLE, "frames": frames}
        list_file(folder, split).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def write_llff(folder: Path, width: int = WIDTH, views: int = VIEWS) -> None:
    """Write the scene of `load_front` in LLFF format: full-size pictures and `poses_bounds.npy`."""
    capture = front_capture(width, views)
    height = round(capture.height)
    (folder / "images").mkdir(parents=True)
    for number, pose in enumerate(capture.poses):
        picture = render(furnished_room(), pose, height, width, capture.focal, samples_along(width)).rgba()
        write_picture(folder / "images" / f"view_{number:03}.png", picture[..., :3])
    right, up, backwards, position = (capture.poses[:, :, column] for column in range(4))
    sizes = np.broadcast_to(np.array([height, width, capture.focal]), right.shape)
    matrices = np.stack([-up, right, backwards, position, sizes], axis=2)
    np.save(folder / CAMERAS, np.concatenate([matrices.reshape(views, 15), capture.bounds], axis=1))
