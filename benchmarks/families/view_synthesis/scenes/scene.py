"""Scenes: pictures with their cameras, independent of their file format."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Pictures = NDArray[np.uint8]


@dataclass(frozen=True)
class Views:
    """Pictures with their cameras.

    Attributes:
        images: (views, height, width, 3), composited on the background; possibly a read-only memory map.
        poses: camera-to-world, (views, 3, 4) float32: the columns are the camera's x (right), y (up) and z axis and its
            position. The camera looks along -z.
    """

    images: Pictures
    poses: Tensor

    def __len__(self) -> int:
        return len(self.poses)


@dataclass(frozen=True)
class Scene:
    """Scene with its splits.

    Attributes:
        name: e.g. "lego".
        kind: "real" or "stand-in".
        splits: "train", "valid" and "test".
        height, width: size of every picture in pixels.
        focal: focal length in pixels; the principal point is the centre of the picture.
        near, far: range of depths of the scene along rays; 0 and 1 if `ndc`.
        ndc: whether the scene is forward-facing and its rays are converted to normalised device coordinates.
        white_background: whether the background is white; black otherwise.
        checksums: file name → sha256 of the files read.
        notes: further facts for the record, e.g. the resolution and frames left out.
        path_poses: camera path of videos, (frames, 3, 4): a turntable, or a spiral if `ndc`.
    """

    name: str
    kind: str
    splits: dict[str, Views]
    height: int
    width: int
    focal: float
    near: float
    far: float
    ndc: bool
    white_background: bool
    checksums: dict[str, str]
    notes: dict[str, float | str]
    path_poses: Tensor
