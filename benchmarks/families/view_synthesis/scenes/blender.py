"""Scenes in Blender format (NeRF-Synthetic): a list of frames per split, each with a camera and an RGBA picture.

The focal length is half the width over the tangent of half the horizontal angle of view. Depths range from 2 to 6; the
background is white.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch

from benchmarks.errors import DataError
from benchmarks.families.view_synthesis.scenes.cache import decoded, image_cache_dir
from benchmarks.families.view_synthesis.scenes.cameras import Array, pose_error, turntable
from benchmarks.families.view_synthesis.scenes.images import picture_size, scaled_size
from benchmarks.families.view_synthesis.scenes.scene import Scene, Views
from benchmarks.utils.download import sha256_of
from benchmarks.utils.files import read_regular

SPLITS = {"train": "train", "valid": "val", "test": "test"}
"""Name of a split in this suite → name in the files."""
NEAR, FAR = 2.0, 6.0


@dataclass(frozen=True)
class Frames:
    """Frames of a split.

    Attributes:
        files: pictures that exist.
        poses: camera-to-world poses of these, (frames, 3, 4).
        angle: horizontal angle of view in radians.
        missing: names of listed pictures that do not exist.
    """

    files: list[Path]
    poses: Array
    angle: float
    missing: list[str]

    @property
    def listed(self) -> int:
        """Number of frames in the list."""
        return len(self.files) + len(self.missing)


def list_file(folder: Path, split: str) -> Path:
    """Return the path of the file that lists the frames of "train", "valid" or "test"."""
    return folder / f"transforms_{SPLITS[split]}.json"


def has_frame_lists(folder: Path) -> bool:
    """Return whether the three lists of frames exist; their pictures may be missing."""
    return all(list_file(folder, split).is_file() for split in SPLITS)


def is_complete(folder: Path) -> bool:
    """Return whether every listed frame has its picture."""
    return has_frame_lists(folder) and not any(read_frames(folder, split).missing for split in SPLITS)


def load_blender(
    name: str, folder: Path, *, width: int | None, allow_partial: bool, white_background: bool = True
) -> Scene:
    """Load the scene in `folder`.

    Args:
        name: name of the scene.
        folder: holds `transforms_{train,val,test}.json` and the listed pictures.
        width: width to reduce the pictures to by an area filter; None for their own.
        allow_partial: whether to leave out (and record) frames whose picture is missing.
        white_background: whether the background is white; black otherwise.

    Raises:
        DataError: a list is malformed, a picture is damaged, or pictures are missing and `allow_partial` is off.
        ConfigError: the pictures cannot be reduced to `width`, see `scaled_size`.
    """
    frames = {split: read_frames(folder, split) for split in SPLITS}
    left_out = _check_missing(folder, frames, allow_partial)
    angle = frames["train"].angle
    if any(not math.isclose(part.angle, angle, rel_tol=1e-6) for part in frames.values()):
        raise DataError(f"{folder}: the splits differ in camera_angle_x")
    own = picture_size(frames["train"].files[0])
    height, width = scaled_size(*own, width)
    checksums = {list_file(folder, split).name: sha256_of(list_file(folder, split)) for split in SPLITS}
    splits, place = {}, image_cache_dir(folder)
    for split, part in frames.items():
        images, digest = decoded(part.files, (height, width), white_background, place, f"{name} {split}")
        splits[split] = Views(images, torch.from_numpy(part.poses.astype(np.float32)))
        checksums[f"{SPLITS[split]} ({len(part.files)} pictures)"] = digest
    notes: dict[str, float | str] = {"resolution": f"{width}x{height}" + (f" of {own[1]}x{own[0]}" * (width != own[1]))}
    if left_out:
        notes["left_out"] = left_out
    return blender_scene(name, "real", splits, angle, white_background, checksums, notes)


def blender_scene(
    name: str,
    kind: str,
    splits: dict[str, Views],
    angle: float,
    white_background: bool,
    checksums: dict[str, str],
    notes: dict[str, float | str],
) -> Scene:
    """Build a scene with the conventions of this format; `angle` is the horizontal angle of view in radians."""
    _, height, width, _ = splits["train"].images.shape
    return Scene(
        name=name,
        kind=kind,
        splits=splits,
        height=height,
        width=width,
        focal=0.5 * width / math.tan(0.5 * angle),
        near=NEAR,
        far=FAR,
        ndc=False,
        white_background=white_background,
        checksums=checksums,
        notes={f"{split}_views": len(views) for split, views in splits.items()} | notes,
        path_poses=torch.from_numpy(turntable().astype(np.float32)),
    )


def read_frames(folder: Path, split: str) -> Frames:
    """Read the list of frames of a split.

    Raises:
        DataError: the list is missing or malformed.
    """
    path = list_file(folder, split)
    try:
        content: Any = json.loads(read_regular(path))
        angle = float(content["camera_angle_x"])
        names = [str(frame["file_path"]) for frame in content["frames"]]
        matrices = [np.array(frame["transform_matrix"], dtype=np.float64) for frame in content["frames"]]
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{path} is not a list of frames ({type(error).__name__}: {error})") from None
    if not 0.0 < angle < math.pi:
        raise DataError(f"{path}: camera_angle_x must lie between 0 and pi, got {angle}")
    if not names:
        raise DataError(f"{path} lists no frames")
    if any(matrix.shape != (4, 4) for matrix in matrices):
        raise DataError(f"{path}: a transform_matrix is not 4 by 4")
    poses = np.stack(matrices)[:, :3]
    if reason := pose_error(poses):
        raise DataError(f"{path}: {reason}")
    if outside := [name for name in names if _leaves(name)]:
        raise DataError(f"{path}: the picture {outside[0]!r} lies outside the scene's folder")
    files = [_picture_file(folder, name) for name in names]
    there = [file.is_file() for file in files]
    return Frames(
        files=[file for file, found in zip(files, there, strict=True) if found],
        poses=poses[there],
        angle=angle,
        missing=[file.name for file, found in zip(files, there, strict=True) if not found],
    )


def _leaves(name: str) -> bool:
    """Return whether a path leads out of the folder it is relative to."""
    return "\0" in name or Path(name).is_absolute() or ".." in PurePosixPath(name.replace("\\", "/")).parts


def _picture_file(folder: Path, name: str) -> Path:
    return folder / (name if name.lower().endswith((".png", ".jpg", ".jpeg")) else f"{name}.png")


def _check_missing(folder: Path, frames: dict[str, Frames], allow_partial: bool) -> str:
    """Return a description of the frames without a picture, "" if there are none."""
    lacking = {split: part for split, part in frames.items() if part.missing}
    if not lacking:
        return ""
    counts = ", ".join(f"{len(part.missing)} of {part.listed} {split}" for split, part in lacking.items())
    described = f"{counts} frames without a picture"
    empty = [split for split, part in lacking.items() if not part.files]
    if empty:
        raise DataError(f"{folder} has no pictures for: {', '.join(empty)}")
    if not allow_partial:
        split, part = next(iter(lacking.items()))
        raise DataError(
            f"{folder} is incomplete: {described}, e.g. {SPLITS[split]}/{part.missing[0]};"
            " task.options.allow_partial=true leaves them out"
        )
    return described
