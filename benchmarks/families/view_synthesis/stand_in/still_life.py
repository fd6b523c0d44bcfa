"""Shapes of the stand-in: balls and blocks on a checkered table, and a room around them for frontal views."""

import numpy as np
from numpy.typing import NDArray

from benchmarks.families.view_synthesis.stand_in.raytracer import Array, Box, Disc, Material, Shape, Sphere, Texture

Condition = NDArray[np.bool_]

_TABLE = -0.45


def still_life() -> list[Shape]:
    """Return balls and blocks on a table, all within 1.5 of the origin."""
    return [
        Disc(_TABLE, 1.35, Material(_table)),
        Sphere((-0.42, -0.30, _TABLE + 0.45), 0.45, Material(_plain(0.86, 0.12, 0.10), 0.9, 60.0, mirror=0.22)),
        Box((0.48, 0.38, _TABLE + 0.32), (0.36, 0.36, 0.32), 25.0, Material(_bricks)),
        Box((0.48, 0.38, _TABLE + 0.80), (0.21, 0.21, 0.16), 55.0, Material(_stripes)),
        Sphere((0.48, 0.38, _TABLE + 1.10), 0.14, Material(_plain(0.20, 0.62, 0.25), 0.5, 25.0)),
        Sphere((0.50, -0.52, _TABLE + 0.25), 0.25, Material(_beach_ball, 0.2, 15.0)),
        Sphere((-0.52, 0.62, _TABLE + 0.33), 0.33, Material(_marble, 0.3, 30.0)),
        Sphere((0.08, -0.92, _TABLE + 0.15), 0.15, Material(_plain(0.75, 0.75, 0.78), 0.8, 90.0, mirror=0.75)),
        Box((-0.98, -0.08, _TABLE + 0.12), (0.12, 0.12, 0.12), 15.0, Material(_dice)),
    ]


def furnished_room() -> list[Shape]:
    """Return the still life with a wall and a floor, so that a view from the front (-y) has no empty pixels."""
    wall = Box((0.0, 2.6, 2.0), (12.0, 0.1, 6.0), 0.0, Material(_wallpaper))
    return [*still_life(), wall, Disc(_TABLE - 0.02, 14.0, Material(_planks))]


def _plain(*color: float) -> Texture:
    return lambda points: np.broadcast_to(np.array(color), points.shape)


def _choose(where: Condition, one: tuple[float, float, float], other: tuple[float, float, float]) -> Array:
    """Return the colour `one` where the condition holds, else `other`, (points, 3)."""
    return np.where(where[:, None], np.array(one), np.array(other))


def _checks(points: Array, size: float) -> Condition:
    return np.floor(points / size).astype(int).sum(axis=1) % 2 == 0


def _table(points: Array) -> Array:
    checkered = _choose(_checks(points[:, :2], 0.27), (0.93, 0.89, 0.80), (0.22, 0.36, 0.50))
    rim = np.hypot(points[:, 0], points[:, 1]) > 1.2
    return np.where(rim[:, None], np.array([0.72, 0.40, 0.24]), checkered)


def _along_faces(points: Array) -> Array:
    """Return a horizontal coordinate along the sides of a box, (points,)."""
    across = np.abs(points[:, 0]) > np.abs(points[:, 1])
    return np.where(across, points[:, 1], points[:, 0])


def _bricks(points: Array) -> Array:
    row = np.floor(points[:, 2] / 0.107)
    within = points[:, 2] / 0.107 - row, (_along_faces(points) / 0.24 + 0.5 * (row % 2)) % 1.0
    mortar = (within[0] < 0.14) | (within[1] < 0.07)
    return _choose(mortar, (0.84, 0.80, 0.74), (0.66, 0.27, 0.17))


def _stripes(points: Array) -> Array:
    even = np.floor(points.sum(axis=1) / 0.09) % 2 == 0
    return _choose(even, (0.98, 0.80, 0.15), (0.13, 0.22, 0.55))


def _beach_ball(points: Array) -> Array:
    colors = np.array([[0.95, 0.95, 0.93], [0.10, 0.45, 0.85], [0.95, 0.95, 0.93], [0.98, 0.55, 0.10]])
    sector = np.floor((np.arctan2(points[:, 2], points[:, 0]) / (2 * np.pi) + 0.03) * 8).astype(int) % len(colors)
    return colors[sector]


def _marble(points: Array) -> Array:
    x, y, z = (points * 9.0).T
    veins = np.sin(x + 2.0 * np.sin(1.3 * y + 0.7 * z) + 1.5 * np.sin(1.9 * z - 0.6 * x))
    share = (0.5 + 0.5 * veins)[:, None] ** 1.5
    return (1.0 - share) * np.array([0.12, 0.30, 0.32]) + share * np.array([0.80, 0.93, 0.88])


def _dice(points: Array) -> Array:
    spots = np.zeros(len(points), dtype=bool)
    for x, y in ((-0.055, -0.055), (0.055, 0.055), (0.0, 0.0), (-0.055, 0.055), (0.055, -0.055)):
        on_top = (points[:, 2] > 0.119) & (np.hypot(points[:, 0] - x, points[:, 1] - y) < 0.024)
        on_side = (points[:, 2] < 0.119) & (np.hypot(_along_faces(points) - x, points[:, 2] - y) < 0.024)
        spots |= on_top | on_side
    return _choose(spots, (0.10, 0.10, 0.12), (0.95, 0.93, 0.60))


def _wallpaper(points: Array) -> Array:
    x, z = points[:, 0] / 0.8, points[:, 2] / 0.8
    diamonds = np.abs((x % 1.0) - 0.5) + np.abs((z % 1.0) - 0.5) < 0.22
    return _choose(diamonds, (0.93, 0.72, 0.42), (0.55, 0.70, 0.68))


def _planks(points: Array) -> Array:
    plank = np.floor(points[:, 0] / 0.35)
    shade = 0.85 + 0.15 * np.sin(12.9 * plank)
    grain = 1.0 + 0.06 * np.sin(9.0 * points[:, 1] + 40.0 * points[:, 0])
    seam = np.where(points[:, 0] / 0.35 - plank < 0.05, 0.55, 1.0)
    return np.array([0.62, 0.44, 0.28]) * (shade * grain * seam)[:, None]
