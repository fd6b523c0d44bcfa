"""Forward-facing captures in LLFF format: `poses_bounds.npy` and folders of pictures at several sizes.

Every 8th view is held out for the test. Poses are rescaled and recentred for normalised device coordinates, in which
depths range from 0 to 1. The background is black.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.errors import ConfigError, DataError
from benchmarks.families.view_synthesis.scenes.cache import decoded, image_cache_dir
from benchmarks.families.view_synthesis.scenes.cameras import Array, forward_facing, pose_error, spiral
from benchmarks.families.view_synthesis.scenes.images import picture_size, scaled_size
from benchmarks.families.view_synthesis.scenes.scene import Pictures, Scene, Views
from benchmarks.utils.download import sha256_of

CAMERAS = "poses_bounds.npy"
HOLD_OUT = 8
FACTOR = 4
"""Reduction of the published experiments: a quarter of the full width."""

_ENDINGS = (".png", ".jpg", ".jpeg")


@dataclass(frozen=True)
class Capture:
    """Content of `poses_bounds.npy`.

    Attributes:
        poses: camera-to-world, (views, 3, 4), axes as in `Views`.
        bounds: nearest and farthest depth, (views, 2).
        height, width, focal: of the full-size pictures, in pixels.
    """

    poses: Array
    bounds: Array
    height: float
    width: float
    focal: float


def read_capture(path: Path) -> Capture:
    """Read `poses_bounds.npy`.

    A row holds a 3 by 5 matrix, whose columns are the camera's down, right and backwards axis, its position, and
    (height, width, focal length); then the nearest and the farthest depth.

    Raises:
        DataError: missing or malformed.
    """
    try:
        rows = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"{path} is missing") from None
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} is not an array of cameras: {error}") from None
    if not isinstance(rows, np.ndarray) or rows.ndim != 2 or rows.shape[1] != 17 or len(rows) < 2:
        raise DataError(f"{path} should hold an array of shape (views, 17) with at least two views")
    rows = rows.astype(np.float64)
    matrices, bounds = rows[:, :15].reshape(-1, 3, 5), rows[:, 15:]
    down, right, backwards, position, sizes = (matrices[:, :, column] for column in range(5))
    poses = np.stack([right, -down, backwards, position], axis=2)
    if reason := pose_error(poses):
        raise DataError(f"{path}: {reason}")
    if not (np.isfinite(bounds).all() and (bounds[:, 0] > 0).all() and (bounds[:, 0] < bounds[:, 1]).all()):
        raise DataError(f"{path}: depths must be positive and the nearer one smaller")
    if not (np.isfinite(sizes).all() and (sizes > 0).all() and np.allclose(sizes, sizes[0])):
        raise DataError(f"{path}: all views must share one size and focal length")
    height, width, focal = (float(number) for number in sizes[0])
    return Capture(poses, bounds, height, width, focal)


def is_complete(folder: Path) -> bool:
    """Return whether the cameras and pictures of at least one size exist."""
    return (folder / CAMERAS).is_file() and bool(_picture_folders(folder))


def load_llff(name: str, folder: Path, *, width: int | None) -> Scene:
    """Load the scene in `folder`.

    Of the folders `images_8`, `images_4`, `images_2` and `images`, the one with the smallest pictures that are large
    enough is read. Validation views are a part of the training views, as the collection has no others.

    Args:
        name: name of the scene.
        folder: holds `poses_bounds.npy` and the folders of pictures.
        width: width to reduce the pictures to by an area filter; None for a quarter of the full width.

    Raises:
        DataError: the cameras are malformed, a picture is damaged, or there are more or fewer pictures than cameras.
        ConfigError: no pictures are as wide as `width`, or they cannot be reduced to it, see `scaled_size`.
    """
    capture = read_capture(folder / CAMERAS)
    files, own = _choose(folder, capture, width or round(capture.width / FACTOR))
    height, width = scaled_size(*own, width or min(own[1], round(capture.width / FACTOR)))
    if len(files) != len(capture.poses):
        raise DataError(
            f"{folder} has {len(capture.poses)} cameras but {len(files)} pictures in {files[0].parent.name}:"
            " the pictures cannot be matched to cameras"
        )
    source = files[0].parent.name
    checksums = {CAMERAS: sha256_of(folder / CAMERAS)}
    images: dict[str, Pictures] = {}
    for split, chosen in split_views(len(files)).items():
        pictures = [file for file, wanted in zip(files, chosen, strict=True) if wanted]
        images[split], digest = decoded(pictures, (height, width), False, image_cache_dir(folder), f"{name} {split}")
        checksums[f"{source}, {split} ({len(pictures)} pictures)"] = digest
    notes: dict[str, float | str] = {
        "resolution": f"{width}x{height}" + f" of {own[1]}x{own[0]}" * (width != own[1]) + f" ({source})"
    }
    return forward_scene(name, "real", capture, images, checksums, notes)


def split_views(views: int) -> dict[str, NDArray[np.bool_]]:
    """Return masks (views,) of "train" and "test"; every 8th view from the first on is for the test."""
    held_out = np.arange(views) % HOLD_OUT == 0
    return {"train": ~held_out, "test": held_out}


def forward_scene(
    name: str,
    kind: str,
    capture: Capture,
    images: dict[str, Pictures],
    checksums: dict[str, str],
    notes: dict[str, float | str],
) -> Scene:
    """Build a scene with the conventions of this format from all cameras and the images of each split."""
    poses, bounds = forward_facing(capture.poses, capture.bounds)
    which = split_views(len(poses))
    splits = {split: Views(images[split], torch.from_numpy(poses[which[split]].astype(np.float32))) for split in images}
    splits["valid"] = _validation_views(splits["train"])
    _, height, width, _ = images["train"].shape
    counts: dict[str, float | str] = {f"{split}_views": len(views) for split, views in splits.items()}
    return Scene(
        name=name,
        kind=kind,
        splits=splits,
        height=height,
        width=width,
        focal=capture.focal * width / capture.width,
        near=0.0,
        far=1.0,
        ndc=True,
        white_background=False,
        checksums=checksums,
        notes=counts | {"valid": "a part of the training views"} | notes,
        path_poses=torch.from_numpy(spiral(poses, bounds).astype(np.float32)),
    )


def _validation_views(views: Views) -> Views:
    """Return every 7th training view from the 4th on, half-way between two held-out ones."""
    chosen = slice(3, None, HOLD_OUT - 1) if len(views) > 3 else slice(0, 1)
    return Views(views.images[chosen], views.poses[chosen])


def _picture_folders(folder: Path) -> list[list[Path]]:
    """Return the files in each of `images`, `images_2`, …, sorted by name; empty folders are left out."""
    candidates = sorted(path for path in folder.glob("images*") if re.fullmatch(r"images(_\d+)?", path.name))
    listings = (sorted(file for file in path.glob("*") if file.suffix.lower() in _ENDINGS) for path in candidates)
    return [files for files in listings if files]


def _choose(folder: Path, capture: Capture, width: int) -> tuple[list[Path], tuple[int, int]]:
    """Return the files of the smallest pictures at least `width` wide, and their (height, width)."""
    sized = [(picture_size(files[0]), files) for files in _picture_folders(folder)]
    if not sized:
        raise DataError(f"{folder} has no pictures: neither images nor images_{FACTOR}")
    for (rows, columns), files in sized:
        if not math.isclose(rows / columns, capture.height / capture.width, rel_tol=0.01):
            raise DataError(f"{files[0]} is {columns}x{rows}, another aspect ratio than in {CAMERAS}")
    enough = [(size, files) for size, files in sized if size[1] >= width]
    if not enough:
        widest = max(size[1] for size, _ in sized)
        raise ConfigError(f"{folder} has pictures at most {widest} wide, not {width}; set task.options.width")
    size, files = min(enough, key=lambda entry: entry[0][1])
    return files, size
