"""The exact renderer against formulas for what a pinhole camera sees."""

import numpy as np
import pytest

from benchmarks.families.view_synthesis.scenes.cameras import hemisphere, look_at, pose_error
from benchmarks.families.view_synthesis.stand_in.raytracer import (
    Box,
    Disc,
    Material,
    Shape,
    Sphere,
    depth_map,
    render,
    trace,
)
from benchmarks.families.view_synthesis.stand_in.still_life import furnished_room, still_life

WHITE = Material(lambda points: np.ones_like(points))
UP = np.array([0.0, 0.0, 1.0])


def from_front(distance: float) -> np.ndarray:
    return look_at(np.array([0.0, -distance, 0.0]), np.zeros(3), UP)


@pytest.mark.parametrize(("radius", "distance"), [(0.5, 4.0), (1.0, 3.0), (0.2, 2.0)])
def test_a_sphere_shows_as_a_disc_of_known_radius(radius: float, distance: float) -> None:
    """On the optical axis its outline is a circle of radius f r / sqrt(d² - r²)."""
    seen = render([Sphere((0, 0, 0), radius, WHITE)], from_front(distance), 120, 120, 150.0, samples=4)
    expected = 150.0 * radius / np.sqrt(distance**2 - radius**2)
    assert seen.coverage.sum() == pytest.approx(np.pi * expected**2, rel=2e-3)
    rows, columns = np.indices(seen.coverage.shape) + 0.5
    for coordinate in (rows, columns):
        assert (coordinate * seen.coverage).sum() / seen.coverage.sum() == pytest.approx(60.0, abs=1e-6)


def test_depth_is_along_the_axis_and_exact() -> None:
    """The wall y = 0 has depth d at every pixel; a sphere's nearest point d - r."""
    wall = Box((0.0, 0.5, 0.0), (50.0, 0.5, 50.0), 0.0, WHITE)
    np.testing.assert_allclose(depth_map([wall], from_front(3.0), 6, 8, 5.0), 3.0)
    np.testing.assert_allclose(depth_map([Sphere((0, 0, 0), 1.0, WHITE)], from_front(3.0), 1, 1, 5.0), 2.0)
    assert np.isinf(depth_map([Sphere((9, 0, 0), 1.0, WHITE)], from_front(3.0), 1, 1, 5.0)).all()


def test_a_box_shows_as_a_square_of_known_side() -> None:
    """Head on, its nearest face of half edge a at depth d - a covers (2 f a / (d - a))² pixels."""
    seen = render([Box((0, 0, 0), (0.5, 0.5, 0.5), 0.0, WHITE)], from_front(3.0), 100, 100, 100.0, samples=4)
    assert seen.coverage.sum() == pytest.approx((2 * 100.0 * 0.5 / 2.5) ** 2, rel=1e-6)


def test_a_turned_box_is_as_wide_as_its_diagonal() -> None:
    """At 45° its edge is nearest; the silhouette's half width is f s / d with half diagonal s (at depth d)."""
    box = Box((0, 0, 0), (0.5, 0.5, 0.1), 45.0, WHITE)
    seen = render([box], from_front(4.0), 3, 300, 300.0, samples=4)
    assert seen.coverage[1].sum() == pytest.approx(2 * 300.0 * np.sqrt(0.5) / 4.0, abs=0.51)


def test_a_disc_from_above_is_a_circle() -> None:
    above = look_at(np.array([0.0, 0.0, 4.0]), np.zeros(3), np.array([0.0, 1.0, 0.0]))
    seen = render([Disc(0.0, 1.0, WHITE)], above, 100, 100, 120.0, samples=4)
    assert seen.coverage.sum() == pytest.approx(np.pi * (120.0 / 4.0) ** 2, rel=3e-3)
    assert not render([Disc(0.0, 1.0, WHITE)], from_front(4.0), 9, 9, 20.0).coverage.any()  # edge on


def test_points_of_a_surface_satisfy_its_equation_and_normals_are_units() -> None:
    draw = np.random.default_rng(0)
    origins = draw.normal(0, 0.1, (500, 3)) + np.array([0.0, -5.0, 2.0])
    directions = np.array([0.0, 5.0, -2.0]) + draw.normal(0, 0.3, (500, 3)) - draw.normal(0, 0.1, (500, 3))
    shapes: list[Shape] = [Sphere((0.1, 0.2, 0.1), 1.0, WHITE), Box((0, 0, 0), (0.7, 0.5, 0.6), 33.0, WHITE)]
    for shape in shapes:
        t = shape.intersect(origins, directions)
        hit = np.isfinite(t)
        assert hit.sum() > 100
        points = origins[hit] + t[hit, None] * directions[hit]
        normals = shape.normals(points)
        np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1.0)
        assert ((normals * directions[hit]).sum(axis=1) < 0).all()  # what is seen faces the viewer
        if isinstance(shape, Sphere):
            np.testing.assert_allclose(np.linalg.norm(points - np.array(shape.center), axis=1), 1.0)
        else:
            np.testing.assert_allclose(np.abs(shape.to_local(points) / np.array([0.7, 0.5, 0.6])).max(axis=1), 1.0)


def test_the_nearer_shape_hides_the_farther() -> None:
    red = Material(lambda points: np.tile([1.0, 0.0, 0.0], (len(points), 1)))
    near, far = Sphere((0, -1, 0), 0.3, red), Sphere((0, 1, 0), 0.9, WHITE)
    for shapes in ([near, far], [far, near]):
        seen = render(shapes, from_front(4.0), 1, 1, 1.0)
        assert seen.colors[0, 0, 0] > 0 and seen.colors[0, 0, 1] == 0.0


def test_shadow_of_a_ball_has_the_place_and_area_of_its_projection() -> None:
    """Along the light l it moves by -l_xy / l_z times its height, and its disc stretches by 1 / l_z (l of length 1)."""
    floor, ball = Disc(0.0, 20.0, WHITE), Sphere((0.0, 0.0, 2.0), 0.4, WHITE)
    above = look_at(np.array([0.0, 0.0, 9.0]), np.zeros(3), np.array([0.0, 1.0, 0.0]))
    scenes: list[list[Shape]] = [[floor], [floor, ball]]
    free, shaded = (render(shapes, above, 120, 120, 180.0).colors[..., 0] for shapes in scenes)
    row, column = np.mgrid[:120, :120]
    x, y = (column + 0.5 - 60) / 20, (60 - row - 0.5) / 20  # 180 / 9 pixels to the unit on the floor
    darker = (shaded < free - 0.2) & (np.hypot(x, y) > 0.7)  # the ball itself shows within 0.6
    light = np.array([0.45, -0.55, 0.70]) / np.linalg.norm([0.45, -0.55, 0.70])
    assert x[darker].mean() == pytest.approx(-2.0 * light[0] / light[2], abs=0.02)
    assert y[darker].mean() == pytest.approx(-2.0 * light[1] / light[2], abs=0.02)
    assert darker.sum() / 400 == pytest.approx(np.pi * 0.16 / light[2], rel=0.03)


def test_gloss_depends_on_the_view_and_matt_does_not() -> None:
    """The same point of a sphere from two sides."""
    point = np.array([0.45, -0.55, 0.70]) / np.linalg.norm([0.45, -0.55, 0.70])
    for gloss in (0.0, 0.8):
        ball = Sphere((0, 0, 0), 1.0, Material(lambda points: np.full_like(points, 0.3), gloss=gloss))
        colors = []
        for place in (4.0 * point, 4.0 * point + np.array([1.5, 0.0, 0.0])):
            color, _ = trace([ball], place[None], (point - place)[None])
            colors.append(color[0])
        assert (np.abs(colors[0] - colors[1]).max() > 0.1) == (gloss > 0)


def test_a_mirror_shows_what_stands_behind_the_viewer() -> None:
    green = Material(lambda points: np.tile([0.0, 1.0, 0.0], (len(points), 1)))
    black = Material(lambda points: np.zeros_like(points), mirror=1.0)
    wall, behind = Box((0, 1, 0), (3, 0.1, 3), 0.0, black), Box((0, -8, 0), (9, 0.1, 9), 0.0, green)
    color, _ = trace([wall, behind], np.array([[0.0, -2.0, 0.0]]), np.array([[0.0, 1.0, 0.0]]))
    assert color[0, 1] > 0.1 and color[0, 0] == color[0, 2] == 0.0


def test_rgba_composites_to_the_same_light() -> None:
    seen = render(still_life(), hemisphere(np.array([0.6, 0.0, 0.8]), 4.0), 24, 24, 33.0, samples=3)
    rgba = seen.rgba() / 255.0
    assert 0.2 < (seen.coverage == 0).mean() < 0.8
    for background in (0.0, 1.0):
        exact = seen.colors + background * (1.0 - seen.coverage[..., None])
        stored = rgba[..., :3] * rgba[..., 3:] + background * (1.0 - rgba[..., 3:])
        assert np.abs(exact - stored).max() < 1.5 / 255.0


def test_more_samples_converge() -> None:
    pose = hemisphere(np.array([0.0, -0.8, 0.6]), 4.0)
    fine = render(still_life(), pose, 16, 16, 22.0, samples=12).colors
    errors = [np.abs(render(still_life(), pose, 16, 16, 22.0, samples=n).colors - fine).mean() for n in (1, 3, 6)]
    assert errors[0] > 2 * errors[1] > 2 * errors[2]


def test_the_room_leaves_no_gap() -> None:
    pose = look_at(np.array([0.5, -3.7, 0.8]), np.array([0.0, 0.3, 0.0]), UP)
    assert pose_error(pose[None]) == ""
    assert (render(furnished_room(), pose, 30, 40, 46.0).coverage == 1).all()
