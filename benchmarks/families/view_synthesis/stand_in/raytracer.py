"""Ray tracer of solid shapes with closed-form intersections, exact up to the number of rays per pixel.

A directional light casts hard shadows. Surfaces are textured and may have a highlight and a reflection (one bounce),
which depend on the viewing direction.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks.families.view_synthesis.scenes.images import area_filter

Array = NDArray[np.float64]
Texture = Callable[[Array], Array]
"""Points in a shape's local coordinates, (points, 3) → colours in [0, 1], (points, 3)."""

_OFF_SURFACE = 1e-6
_BLOCK = 16_384  # rays traced at once; their vectors fit the processor's cache
_TO_LIGHT = np.array([0.45, -0.55, 0.70]) / np.linalg.norm([0.45, -0.55, 0.70])
_AMBIENT, _DIFFUSE = 0.46, 0.64


@dataclass(frozen=True)
class Material:
    """Appearance of a surface.

    Attributes:
        texture: colour at each point.
        gloss: brightness of the highlight (Phong).
        sharpness: exponent of the highlight.
        mirror: weight of the reflection in the colour.
    """

    texture: Texture
    gloss: float = 0.0
    sharpness: float = 40.0
    mirror: float = 0.0


class Shape(Protocol):
    """Visible solid."""

    @property
    def material(self) -> Material:
        """Appearance of the surface."""
        ...

    def intersect(self, origins: Array, directions: Array) -> Array:
        """Return t > 0 where each ray o + t d enters the shape, inf where it misses, (rays,)."""
        ...

    def normals(self, points: Array) -> Array:
        """Return unit outward normals at points of the surface, (points, 3)."""
        ...

    def to_local(self, points: Array) -> Array:
        """Return points in the shape's local coordinates, (points, 3)."""
        ...


@dataclass(frozen=True)
class Sphere:
    """Sphere around `center`."""

    center: tuple[float, float, float]
    radius: float
    material: Material

    def intersect(self, origins: Array, directions: Array) -> Array:
        """See `Shape`."""
        offset = origins - np.array(self.center)
        a, half_b = _dot(directions, directions), _dot(offset, directions)
        discriminant = half_b**2 - a * (_dot(offset, offset) - self.radius**2)
        root = np.sqrt(np.maximum(discriminant, 0.0))
        t = (-half_b - root) / a
        return np.where((discriminant > 0.0) & (t > _OFF_SURFACE), t, np.inf)

    def normals(self, points: Array) -> Array:
        """See `Shape`."""
        return self.to_local(points) / self.radius

    def to_local(self, points: Array) -> Array:
        """See `Shape`."""
        return points - np.array(self.center)


@dataclass(frozen=True)
class Box:
    """Box around `center` with half edge lengths `half`, rotated about the vertical axis by `turn` degrees."""

    center: tuple[float, float, float]
    half: tuple[float, float, float]
    turn: float
    material: Material

    def intersect(self, origins: Array, directions: Array) -> Array:
        """See `Shape`."""
        start, along = self.to_local(origins), directions @ self._axes()
        with np.errstate(divide="ignore", invalid="ignore"):
            one, other = (-np.array(self.half) - start) / along, (np.array(self.half) - start) / along
        # A ray in the plane of a face gives 0 / 0, which the comparison below treats as a miss.
        enter = np.maximum.reduce(np.minimum(one, other).T)
        leave = np.minimum.reduce(np.maximum(one, other).T)
        return np.where((enter < leave) & (enter > _OFF_SURFACE), enter, np.inf)

    def normals(self, points: Array) -> Array:
        """See `Shape`."""
        relative = self.to_local(points) / np.array(self.half)
        face = np.abs(relative).argmax(axis=1)
        rows = np.arange(len(points))
        normals = np.zeros_like(points)
        normals[rows, face] = np.sign(relative[rows, face])
        return normals @ self._axes().T

    def to_local(self, points: Array) -> Array:
        """See `Shape`."""
        return (points - np.array(self.center)) @ self._axes()

    def _axes(self) -> Array:
        """Return the box's axes as columns, (3, 3)."""
        cos, sin = np.cos(np.radians(self.turn)), np.sin(np.radians(self.turn))
        return np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])


@dataclass(frozen=True)
class Disc:
    """Flat disc around (0, 0, `height`) that faces up."""

    height: float
    radius: float
    material: Material

    def intersect(self, origins: Array, directions: Array) -> Array:
        """See `Shape`."""
        with np.errstate(divide="ignore", invalid="ignore"):
            t = (self.height - origins[:, 2]) / directions[:, 2]
            x, y = (origins[:, axis] + t * directions[:, axis] for axis in (0, 1))
            inside = x**2 + y**2 < self.radius**2
        return np.where(inside & (t > _OFF_SURFACE), t, np.inf)

    def normals(self, points: Array) -> Array:
        """See `Shape`."""
        return np.broadcast_to(np.array([0.0, 0.0, 1.0]), points.shape)

    def to_local(self, points: Array) -> Array:
        """See `Shape`."""
        return points - np.array([0.0, 0.0, self.height])


@dataclass(frozen=True)
class Rendering:
    """Rendered picture with coverage.

    Attributes:
        colors: colour times coverage, in [0, 1], (height, width, 3).
        coverage: share of the pixel that shows a shape, (height, width).
    """

    colors: Array
    coverage: Array

    def rgba(self) -> NDArray[np.uint8]:
        """Return the picture with straight alpha, (height, width, 4)."""
        straight = self.colors / np.maximum(self.coverage, 1e-12)[..., None]
        values = np.concatenate([straight, self.coverage[..., None]], axis=-1)
        return np.rint(255.0 * np.clip(values, 0.0, 1.0)).astype(np.uint8)


def render(shapes: Sequence[Shape], pose: Array, height: int, width: int, focal: float, samples: int = 1) -> Rendering:
    """Render the picture of a pinhole camera.

    Args:
        shapes: at least one.
        pose: camera-to-world, (3, 4); the camera looks along -z.
        height, width, focal: in pixels; the principal point is the centre of the picture.
        samples: rays along each side of a pixel; the pixel is the mean over their regular grid.
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
    """Return the depth along the camera's axis at the centre of every pixel, inf where nothing is, (height, width)."""
    origins, directions = _rays(pose, height, width, focal)
    nearest: Array = np.min([shape.intersect(origins, directions) for shape in shapes], axis=0)
    return nearest.reshape(height, width)


def _rays(pose: Array, height: int, width: int, focal: float) -> tuple[Array, Array]:
    """Return origins and directions of rays through all pixel centres in row-major order; their parameter is depth."""
    y, x = np.mgrid[:height, :width]
    across, upwards = (x + 0.5 - width / 2) / focal, (height / 2 - y - 0.5) / focal
    directions = np.stack([across, upwards, np.full_like(across, -1.0)], axis=-1).reshape(-1, 3) @ pose[:, :3].T
    return np.broadcast_to(pose[:, 3], directions.shape), directions


def trace(shapes: Sequence[Shape], origins: Array, directions: Array, bounces: int = 1) -> tuple[Array, Array]:
    """Trace rays o + t d; return colours (rays, 3) and t at the surface (rays,): the sky and inf where they miss."""
    distances = np.stack([shape.intersect(origins, directions) for shape in shapes])
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
    # Moved off the surface, so that rounding does not let a shape shade itself.
    above = points + 1e-4 * normals
    to_light = np.broadcast_to(_TO_LIGHT, points.shape)
    lit = facing > 0.0
    lit[lit] = ~np.any([np.isfinite(other.intersect(above[lit], to_light[lit])) for other in shapes], axis=0)
    skylight = _AMBIENT * (0.75 + 0.25 * normals[:, 2])
    colors = material.texture(shape.to_local(points)) * (skylight + _DIFFUSE * lit * np.maximum(facing, 0.0))[:, None]
    reflected = view - 2.0 * _dot(view, normals)[:, None] * normals
    if material.mirror and bounces:
        around, _ = trace(shapes, above, reflected, bounces - 1)
        colors = (1.0 - material.mirror) * colors + material.mirror * around
    if material.gloss:
        highlight = np.maximum(reflected @ _TO_LIGHT, 0.0) ** material.sharpness
        colors = colors + material.gloss * (lit * highlight)[:, None]
    return np.minimum(colors, 1.0)


def _sky(directions: Array) -> Array:
    """Return the colour of the sky, pale below and blue above; visible in reflections only."""
    up = directions[:, 2:] / np.sqrt(_dot(directions, directions))[:, None]
    share = np.clip(0.5 + 0.5 * up, 0.0, 1.0)
    return (1.0 - share) * np.array([0.92, 0.90, 0.86]) + share * np.array([0.35, 0.55, 0.90])


def _dot(one: Array, other: Array) -> Array:
    """Return the inner product of each pair of rows, (rows,)."""
    product: Array = np.einsum("ij,ij->i", one, other)
    return product
