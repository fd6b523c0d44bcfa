"""Rays against the pinhole camera worked out by hand, and NDC against the perspective matrix."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks.families.view_synthesis.render.rays import Camera, Rays, camera_rays, to_ndc


def camera(height: int = 4, width: int = 6, focal: float = 5.0, ndc: bool = False) -> Camera:
    return SimpleNamespace(height=height, width=width, focal=focal, ndc=ndc)


IDENTITY = torch.eye(4)[:3]


def rotated(seed: int = 0) -> torch.Tensor:
    """Return the pose of a camera with random rotation and position, (3, 4)."""
    generator = torch.Generator().manual_seed(seed)
    rotation, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))
    rotation = rotation * torch.linalg.det(rotation)
    return torch.cat((rotation, torch.randn(3, 1, generator=generator, dtype=torch.float64)), dim=1)


def test_the_camera_looks_along_its_minus_z_with_x_to_the_right_and_y_up() -> None:
    rays = camera_rays(camera(), IDENTITY, torch.arange(24))
    directions = rays.directions.reshape(4, 6, 3)
    # Rows go down: the upper left pixel looks to the left and up.
    assert directions[0, 0].tolist() == pytest.approx([-2.5 / 5, 1.5 / 5, -1])
    assert directions[3, 5].tolist() == pytest.approx([2.5 / 5, -1.5 / 5, -1])
    assert torch.allclose(directions.mean(dim=(0, 1)), torch.tensor([0.0, 0.0, -1.0]), atol=1e-6)
    assert not rays.origins.any()
    corner = camera_rays(camera(), IDENTITY, torch.tensor([0]), pixel_centre=0.0)
    assert corner.directions[0].tolist() == pytest.approx([-3 / 5, 2 / 5, -1])


def test_projecting_a_point_of_a_ray_gives_its_pixel_back() -> None:
    """The inverse of the camera, written with NumPy from the definition of the focal length."""
    pose = rotated()
    pixels = torch.randperm(24)[:10]
    rays = camera_rays(camera(), pose, pixels)
    points = (rays.origins + 3.7 * rays.directions).numpy()
    inside = (points - pose[:, 3].numpy()) @ pose[:, :3].numpy()
    columns = 3 + 5 * inside[:, 0] / -inside[:, 2]
    rows = 2 - 5 * inside[:, 1] / -inside[:, 2]
    assert np.allclose(columns, pixels.numpy() % 6 + 0.5) and np.allclose(rows, pixels.numpy() // 6 + 0.5)
    assert np.allclose(-inside[:, 2], 3.7), "t is the depth along the axis"
    assert torch.allclose(rays.view.norm(dim=1), torch.ones(10, dtype=torch.float64))
    assert torch.allclose(torch.cross(rays.view, rays.directions, dim=1), torch.zeros(10, 3, dtype=torch.float64))


def test_ndc_rays_are_the_images_of_the_rays_under_the_perspective_matrix() -> None:
    """Every point of a ray, sent through OpenGL's projection, lies on the NDC ray, and t' is worked out by hand."""
    height, width, focal, near = 30, 40, 33.0, 1.0
    pose = torch.eye(4, dtype=torch.float64)[:3].clone()
    pose[:, 3] = torch.tensor([0.3, -0.2, 0.4])
    rays = camera_rays(camera(height, width, focal), pose, torch.arange(0, 1200, 37))
    origins, directions = to_ndc(rays.origins, rays.directions, height, width, focal, near)

    def project(points: torch.Tensor) -> torch.Tensor:
        x, y, z = points.unbind(-1)
        return torch.stack((-focal / (width / 2) * x / z, -focal / (height / 2) * y / z, 1 + 2 * near / z), dim=-1)

    for depth in (0.7, 1.5, 40.0, 1e5):
        points = rays.origins + depth * rays.directions
        t = 1 + near / points[:, 2]  # 0 on the near plane, 1 at infinity
        assert torch.allclose(project(points), origins + t[:, None] * directions, atol=1e-9)
    assert torch.allclose(origins[:, 2], torch.full_like(origins[:, 2], -1)), "the near plane"
    assert torch.allclose((origins + directions)[:, 2], torch.ones(len(origins), dtype=torch.float64)), "infinity"
    # Rays of an untransformed camera at the origin: the picture is the square from -1 to 1.
    square, _ = to_ndc(*_straight(height, width, focal), height, width, focal)
    assert square[:, :2].abs().max() < 1 and square[0, 0] == pytest.approx(-1 + 1 / width)


def _straight(height: int, width: int, focal: float) -> tuple[torch.Tensor, torch.Tensor]:
    rays = camera_rays(camera(height, width, focal), IDENTITY, torch.arange(height * width))
    return rays.origins, rays.directions


def test_a_forward_facing_camera_keeps_the_viewing_directions_of_the_world() -> None:
    plain = camera_rays(camera(), IDENTITY, torch.arange(24))
    ndc = camera_rays(camera(ndc=True), IDENTITY, torch.arange(24))
    assert torch.equal(plain.view, ndc.view) and not torch.equal(plain.directions, ndc.directions)


def test_slices_of_rays() -> None:
    rays = camera_rays(camera(), IDENTITY, torch.arange(24))
    assert isinstance(rays[3:5], Rays) and len(rays[3:5]) == 2
    assert torch.equal(rays[3:5].view, rays.view[3:5])
