"""Camera rays, and their conversion to normalised device coordinates (NDC)."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Camera(Protocol):
    """Attributes of a scene that determine its rays; see `Scene`."""

    @property
    def height(self) -> int:
        """Height of the picture in pixels."""
        ...

    @property
    def width(self) -> int:
        """Width of the picture in pixels."""
        ...

    @property
    def focal(self) -> float:
        """Focal length in pixels."""
        ...

    @property
    def ndc(self) -> bool:
        """Whether rays are converted to normalised device coordinates."""
        ...


@dataclass(frozen=True)
class Rays:
    """Rays o + t d.

    Attributes:
        origins: o, (rays, 3).
        directions: d, (rays, 3), not of unit length: t is the depth along the camera's axis (or along NDC's z axis).
        view: unit viewing directions in the world, (rays, 3).
    """

    origins: Tensor
    directions: Tensor
    view: Tensor

    def __len__(self) -> int:
        return len(self.origins)

    def __getitem__(self, which: slice) -> "Rays":
        return Rays(self.origins[which], self.directions[which], self.view[which])


def camera_rays(camera: Camera, pose: Tensor, pixels: Tensor, pixel_centre: float = 0.5) -> Rays:
    """Return the rays of a pinhole camera through some of its pixels.

    Args:
        camera: see `Camera`.
        pose: camera-to-world, (3, 4): x right, y up, the camera looks along -z.
        pixels: row-major indices of the pixels, (rays,).
        pixel_centre: offset of the ray within its pixel; 0.5 is the centre, 0 the corner, as in early implementations
            of NeRF.
    """
    columns = (pixels % camera.width + pixel_centre).to(pose.dtype)
    rows = (torch.div(pixels, camera.width, rounding_mode="floor") + pixel_centre).to(pose.dtype)
    x = (columns - 0.5 * camera.width) / camera.focal
    y = (0.5 * camera.height - rows) / camera.focal
    directions = torch.stack((x, y, -torch.ones_like(x)), dim=-1) @ pose[:, :3].T
    origins = pose[:, 3].expand_as(directions)
    view = torch.nn.functional.normalize(directions, dim=-1)
    if camera.ndc:
        origins, directions = to_ndc(origins, directions, camera.height, camera.width, camera.focal)
    return Rays(origins, directions, view)


def to_ndc(
    origins: Tensor, directions: Tensor, height: int, width: int, focal: float, near: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Convert rays to the normalised device coordinates of a camera at the origin (Mildenhall et al. 2020, appendix C).

    Depth t' in [0, 1] covers the space from the near plane z = -near to infinity. Rays must have d_z < 0.

    Args:
        origins, directions: (rays, 3).
        height, width, focal: of the camera, in pixels.
        near: distance of the near plane.

    Returns:
        Origins and directions in NDC, (rays, 3) each.
    """
    to_plane = -(near + origins[:, 2]) / directions[:, 2]
    o_x, o_y, o_z = (origins + to_plane[:, None] * directions).unbind(-1)
    d_x, d_y, d_z = directions.unbind(-1)
    scale_x, scale_y = -2 * focal / width, -2 * focal / height
    new_origins = torch.stack((scale_x * o_x / o_z, scale_y * o_y / o_z, 1 + 2 * near / o_z), dim=-1)
    new_directions = torch.stack(
        (scale_x * (d_x / d_z - o_x / o_z), scale_y * (d_y / d_z - o_y / o_z), -2 * near / o_z), dim=-1
    )
    return new_origins, new_directions
