"""Array file of Tiny-NeRF: 106 views of Lego at 100x100 on black; the first 100 train, view 101 is held out.

If the file is missing, the Blender Lego replaces it: its 100 training views, reduced to the same size.
"""

import math
import zlib
from dataclasses import replace
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch

from benchmarks.errors import DataError
from benchmarks.families.view_synthesis.scenes.blender import blender_scene, load_blender
from benchmarks.families.view_synthesis.scenes.cameras import pose_error
from benchmarks.families.view_synthesis.scenes.images import prepare, scaled_size
from benchmarks.families.view_synthesis.scenes.scene import Pictures, Scene, Views
from benchmarks.utils.download import sha256_of

FILE = "tiny_nerf_data.npz"
WIDTH = 100
TRAINING_VIEWS = 100
HELD_OUT = 101


def load_tiny(name: str, path: Path, *, width: int | None) -> Scene:
    """Load the scene in the array file `path`: images (views, height, width, 3) in [0, 1], poses (views, 4, 4), focal.

    Views that are in neither the training nor the test split form the validation split.

    Raises:
        DataError: the file is missing or malformed.
        ConfigError: the pictures cannot be reduced to `width`, see `scaled_size`.
    """
    try:
        with np.load(path, allow_pickle=False) as content:
            images, poses = content["images"], content["poses"].astype(np.float64)
            focal = float(content["focal"])
    except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile, zlib.error) as error:
        raise DataError(f"{path} is not an array file of views ({type(error).__name__}: {error})") from None
    _check(path, images, poses, focal)
    own_height, own_width = images.shape[1:3]
    height, width = scaled_size(own_height, own_width, width)
    bright = np.rint(images * 255.0).astype(np.uint8)
    pictures: Pictures = np.stack([prepare(picture, height, width, white_background=False) for picture in bright])
    views = Views(pictures, torch.from_numpy(poses[:, :3].astype(np.float32)))
    numbers = np.arange(len(poses))
    chosen = {"train": numbers < TRAINING_VIEWS, "test": numbers == HELD_OUT}
    chosen["valid"] = ~(chosen["train"] | chosen["test"])
    resized = "" if width == own_width else f" of {own_width}x{own_height}"
    splits = {split: Views(views.images[which], views.poses[which]) for split, which in chosen.items()}
    angle = 2 * math.atan(0.5 * own_width / focal)
    notes: dict[str, float | str] = {"resolution": f"{width}x{height}{resized}", "held_out": f"view {HELD_OUT}"}
    return blender_scene(name, "real", splits, angle, False, {FILE: sha256_of(path)}, notes)


def load_tiny_from_blender(name: str, folder: Path, *, width: int | None, allow_partial: bool) -> Scene:
    """Load the replacement of the array file from the Blender scene in `folder`; the scene's notes say so.

    Raises:
        ConfigError, DataError: like `load_blender`.
    """
    scene = load_blender(name, folder, width=width or WIDTH, allow_partial=allow_partial, white_background=False)
    held_out = Views(scene.splits["test"].images[:1], scene.splits["test"].poses[:1])
    pictures = f"{folder.name}'s {len(scene.splits['train'])} training views in Blender format"
    notes = scene.notes | {
        "test_views": 1,
        "pictures": f"{pictures}, area-filtered to {scene.width}x{scene.height}, in place of {FILE}",
        "held_out": "the first test view",
    }
    return replace(scene, splits={**scene.splits, "test": held_out}, notes=notes)


def _check(path: Path, images: np.ndarray, poses: np.ndarray, focal: float) -> None:
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype.kind != "f" or len(images) <= HELD_OUT:
        raise DataError(f"{path}: images should be floats of shape ({HELD_OUT + 1} or more, height, width, 3)")
    if not (images.min() >= 0.0 and images.max() <= 1.0):
        raise DataError(f"{path}: images should lie between 0 and 1")
    if poses.shape != (len(images), 4, 4):
        raise DataError(f"{path}: poses should have shape ({len(images)}, 4, 4), not {poses.shape}")
    if reason := pose_error(poses[:, :3]):
        raise DataError(f"{path}: {reason}")
    if not 0.0 < focal < float("inf"):
        raise DataError(f"{path}: the focal length must be positive, got {focal}")
