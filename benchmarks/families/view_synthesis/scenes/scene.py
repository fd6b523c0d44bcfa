"""What every scene is, wherever it came from: pictures with their cameras."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Pictures = NDArray[np.uint8]


@dataclass(frozen=True)
class Views:
    """Pictures with their cameras.

    Attributes:
        images: (views, height, width, 3), possibly a read-only memory map; already composited on the background.
        poses: camera-to-world, (views, 3, 4) float32: the columns are the camera's x (right), y (up) and z axis and its
            position. The camera looks along its -z.
    """

    images: Pictures
    poses: Tensor

    def __len__(self) -> int:
        return len(self.poses)


@dataclass(frozen=True)
class Scene:
    """A scene with its splits.

    Attributes:
        name: e.g. "lego".
        kind: "real" or "stand-in".
        splits: "train", "valid" and "test".
        height, width: of every picture, in pixels.
        focal: focal length in pixels of these pictures; the optical axis meets the middle of the picture.
        near, far: depths along the ray between which the scene lies (see `ndc`).
        ndc: a forward-facing scene, whose rays are moved to normalised device coordinates; near and far are then the
            0 and 1 of those.
        white_background: what shows where the scene is empty: white, else black.
        checksums: file name → sha256 of what was read.
        notes: further facts for the record, e.g. the resolution and what was left out.
        path_poses: cameras of the scene's own video path, (frames, 3, 4): a turntable, or a spiral if `ndc`.
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
