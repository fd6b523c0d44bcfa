"""An exact renderer of solid shapes: rays meet them in closed form, so that a picture has no error but its sampling.

Light falls from one direction and casts hard shadows; surfaces are textured, and may have a highlight and a reflection
(one bounce), whose look depends on where they are seen from.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks.families.view_synthesis.scenes.images import area_filter

Array = NDArray[np.float64]
Texture = Callable[[Array], Array]
"""Points in a shape's own coordinates, (points, 3) → colours in [0, 1], (points, 3)."""

_OFF_SURFACE = 1e-6
_BLOCK = 16_384  # rays whose vectors stay in the processor's cache
_TO_LIGHT = np.array([0.45, -0.55, 0.70]) / np.linalg.norm([0.45, -0.55, 0.70])
_AMBIENT, _DIFFUSE = 0.46, 0.64


@dataclass(frozen=True)
class Material:
    """How a surface looks.

    Attributes:
        texture: its colour.
        gloss: brightness of the highlight (Phong).
        sharpness: exponent of the highlight.
        mirror: share of the reflected surroundings in its colour.
    """

    texture: Texture
    gloss: float = 0.0
    sharpness: float = 40.0
    mirror: float = 0.0


class Shape(Protocol):
    """What can be seen."""

    @property
    def material(self) -> Material: ...

    def meet(self, origins: Array, directions: Array) -> Array:
        """Parameter t > 0 at which each ray o + t d enters, inf where it misses, (rays,)."""
        ...

    def normals(self, points: Array) -> Array:
        """Unit outward normals at points of the surface, (points, 3)."""
        ...

    def own(self, points: Array) -> Array:
        """Points in the shape's own coordinates, (points, 3)."""
        ...


@dataclass(frozen=True)
class Sphere:
    """Around `center`."""

    center: tuple[float, float, float]
    radius: float
    material: Material

    def meet(self, origins: Array, directions: Array) -> Array:
        offset = origins - np.array(self.center)
        a, half_b = _dot(directions, directions), _dot(offset, directions)
        discriminant = half_b**2 - a * (_dot(offset, offset) - self.radius**2)
        root = np.sqrt(np.maximum(discriminant, 0.0))
        t = (-half_b - root) / a
        return np.where((discriminant > 0.0) & (t > _OFF_SURFACE), t, np.inf)

    def normals(self, points: Array) -> Array:
        return self.own(points) / self.radius

    def own(self, points: Array) -> Array:
        return points - np.array(self.center)


@dataclass(frozen=True)
class Box:
    """Around `center`, with half edges `half`, turned about the vertical by `turn` degrees."""

    center: tuple[float, float, float]
    half: tuple[float, float, float]
    turn: float
    material: Material

    def meet(self, origins: Array, directions: Array) -> Array:
        start, along = self.own(origins), directions @ self._axes()
        with np.errstate(divide="ignore", invalid="ignore"):
            one, other = (-np.array(self.half) - start) / along, (np.array(self.half) - start) / along
        # A ray parallel to a face and in its plane gives 0 / 0: it does not count as a hit.
        enter = np.maximum.reduce(np.minimum(one, other).T)
        leave = np.minimum.reduce(np.maximum(one, other).T)
        return np.where((enter < leave) & (enter > _OFF_SURFACE), enter, np.inf)

    def normals(self, points: Array) -> Array:
        relative = self.own(points) / np.array(self.half)
        face = np.abs(relative).argmax(axis=1)
        rows = np.arange(len(points))
        normals = np.zeros_like(points)
        normals[rows, face] = np.sign(relative[rows, face])
        return normals @ self._axes().T

    def own(self, points: Array) -> Array:
        return (points - np.array(self.center)) @ self._axes()

    def _axes(self) -> Array:
        """The box's axes as columns."""
        cos, sin = np.cos(np.radians(self.turn)), np.sin(np.radians(self.turn))
        return np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])


@dataclass(frozen=True)
class Disc:
    """Flat, facing up, around (0, 0, `height`)."""

    height: float
    radius: float
    material: Material

    def meet(self, origins: Array, directions: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            t = (self.height - origins[:, 2]) / directions[:, 2]
            x, y = (origins[:, axis] + t * directions[:, axis] for axis in (0, 1))
            inside = x**2 + y**2 < self.radius**2
        return np.where(inside & (t > _OFF_SURFACE), t, np.inf)

    def normals(self, points: Array) -> Array:
        return np.broadcast_to(np.array([0.0, 0.0, 1.0]), points.shape)

    def own(self, points: Array) -> Array:
        return points - np.array([0.0, 0.0, self.height])


@dataclass(frozen=True)
class Rendering:
    """A picture.

    Attributes:
        colors: light of what is seen, black where nothing is, (height, width, 3).
        coverage: part of the pixel that is not empty, (height, width).
    """

    colors: Array
    coverage: Array

    def rgba(self) -> NDArray[np.uint8]:
        """With straight alpha, (height, width, 4)."""
        straight = self.colors / np.maximum(self.coverage, 1e-12)[..., None]
        values = np.concatenate([straight, self.coverage[..., None]], axis=-1)
        return np.rint(255.0 * np.clip(values, 0.0, 1.0)).astype(np.uint8)


def render(shapes: Sequence[Shape], pose: Array, height: int, width: int, focal: float, samples: int = 1) -> Rendering:
    """What a pinhole camera sees.

    Args:
        shapes: at least one.
        pose: camera-to-world, (3, 4); the camera looks along its -z.
        height, width, focal: in pixels; the optical axis meets the middle of the picture.
        samples: per side of a pixel; the pixel is the mean of their regular grid.
    """
    origins, directions = _rays(pose, height * samples, width * samples, focal * samples)
    light = np.zeros((len(directions), 4))
    for start in range(0, len(directions), _BLOCK):
        block = slice(start, start + _BLOCK)
        colors, t = trace(shapes, origins[block], directions[block])
        seen = np.isfinite(t)
        light[block, :3], light[block, 3] = colors * seen[:, None], seen
    mean = area_filter(light.reshape(height * samples, width * samples, 4), height, width)
    return Rendering(mean[..., :3], mean[..., 3])


def depth_map(shapes: Sequence[Shape], pose: Array, height: int, width: int, focal: float) -> Array:
    """Depth along the camera's axis in the middle of every pixel, inf where nothing is, (height, width)."""
    origins, directions = _rays(pose, height, width, focal)
    nearest: Array = np.min([shape.meet(origins, directions) for shape in shapes], axis=0)
    return nearest.reshape(height, width)


def _rays(pose: Array, height: int, width: int, focal: float) -> tuple[Array, Array]:
    """Origins and directions of rays through the middle of every pixel, row by row; their parameter is the depth."""
    y, x = np.mgrid[:height, :width]
    across, upwards = (x + 0.5 - width / 2) / focal, (height / 2 - y - 0.5) / focal
    directions = np.stack([across, upwards, np.full_like(across, -1.0)], axis=-1).reshape(-1, 3) @ pose[:, :3].T
    return np.broadcast_to(pose[:, 3], directions.shape), directions


def trace(shapes: Sequence[Shape], origins: Array, directions: Array, bounces: int = 1) -> tuple[Array, Array]:
    """Colour, (rays, 3), and parameter t of what rays o + t d see, (rays,); the sky, and inf, where that is nothing."""
    distances = np.stack([shape.meet(origins, directions) for shape in shapes])
    nearest, t = distances.argmin(axis=0), distances.min(axis=0)
    colors = _sky(directions)
    for number, shape in enumerate(shapes):
        hit = np.flatnonzero((nearest == number) & np.isfinite(t))
        if len(hit):
            points = origins[hit] + t[hit, None] * directions[hit]
            colors[hit] = _shade(shapes, shape, points, directions[hit], bounces)
    return colors, t


def _shade(shapes: Sequence[Shape], shape: Shape, points: Array, directions: Array, bounces: int) -> Array:
    material, normals = shape.material, shape.normals(points)
    view = directions / np.sqrt(_dot(directions, directions))[:, None]
    facing = normals @ _TO_LIGHT
    # Off the surface, so that a shape does not shade itself by a rounding error.
    above = points + 1e-4 * normals
    to_light = np.broadcast_to(_TO_LIGHT, points.shape)
    lit = facing > 0.0
    lit[lit] = ~np.any([np.isfinite(other.meet(above[lit], to_light[lit])) for other in shapes], axis=0)
    skylight = _AMBIENT * (0.75 + 0.25 * normals[:, 2])
    colors = material.texture(shape.own(points)) * (skylight + _DIFFUSE * lit * np.maximum(facing, 0.0))[:, None]
    reflected = view - 2.0 * _dot(view, normals)[:, None] * normals
    if material.mirror and bounces:
        around, _ = trace(shapes, above, reflected, bounces - 1)
        colors = (1.0 - material.mirror) * colors + material.mirror * around
    if material.gloss:
        highlight = np.maximum(reflected @ _TO_LIGHT, 0.0) ** material.sharpness
        colors = colors + material.gloss * (lit * highlight)[:, None]
    return np.minimum(colors, 1.0)


def _sky(directions: Array) -> Array:
    """From pale at the horizon to blue above; seen in reflections only."""
    up = directions[:, 2:] / np.sqrt(_dot(directions, directions))[:, None]
    share = np.clip(0.5 + 0.5 * up, 0.0, 1.0)
    return (1.0 - share) * np.array([0.92, 0.90, 0.86]) + share * np.array([0.35, 0.55, 0.90])


def _dot(one: Array, other: Array) -> Array:
    """Row by row, (rows,)."""
    product: Array = np.einsum("ij,ij->i", one, other)
    return product
