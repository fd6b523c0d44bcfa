"""LLFF format: axes, splits, sizes, malformed files; the real Fern where DFA_DATA_DIR holds it."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.errors import ConfigError, DataError
from benchmarks.families.view_synthesis.scenes.cameras import average_pose
from benchmarks.families.view_synthesis.scenes.llff import is_complete, load_llff, read_capture, split_views
from benchmarks.families.view_synthesis.stand_in import views as stand_in
from tests.helpers.scenes import write_llff

FERN = Path(os.environ.get("DFA_DATA_DIR", "")) / "nerf_llff_data" / "fern"
needs_fern = pytest.mark.skipif(
    "DFA_DATA_DIR" not in os.environ or not is_complete(FERN), reason="DFA_DATA_DIR does not hold Fern"
)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llff") / "toys"
    write_llff(folder, width=32, views=17)
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """Return a copy of the scene that a test may damage."""
    return Path(shutil.copytree(original, tmp_path / "toys"))


def shrunk(folder: Path, factor: int) -> None:
    """Add `images_<factor>`, every picture a flat colour that tells its number."""
    (folder / f"images_{factor}").mkdir()
    for number in range(17):
        picture = np.full((24 // factor, 32 // factor, 3), 10 * number, dtype=np.uint8)
        Image.fromarray(picture).save(folder / f"images_{factor}" / f"p{number:02}.png")


def test_axes_by_hand(tmp_path: Path) -> None:
    """The file's columns are down, right, backwards, position and (height, width, focal)."""
    matrix = np.array([[0.0, 1, 0, 5, 30], [-1.0, 0, 0, 6, 40], [0.0, 0, 1, 7, 50]])
    np.save(tmp_path / "poses_bounds.npy", np.stack([np.append(matrix, [2.0, 9.0])] * 2))
    capture = read_capture(tmp_path / "poses_bounds.npy")
    # Down is (0, -1, 0), so up is +y; right is +x; backwards is +z.
    np.testing.assert_array_equal(capture.poses[0], [[1, 0, 0, 5], [0, 1, 0, 6], [0, 0, 1, 7]])
    np.testing.assert_array_equal(capture.bounds, [[2, 9], [2, 9]])
    assert (capture.height, capture.width, capture.focal) == (30, 40, 50)


def test_what_is_rendered_reads_back_equal(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DFA_CACHE_DIR", str(tmp_path / "cache"))
    rendered = stand_in.load_front("toys", width=32, views=17)
    read = load_llff("toys", folder, width=32)
    for split, views in rendered.splits.items():
        np.testing.assert_array_equal(read.splits[split].images, views.images)
        torch.testing.assert_close(read.splits[split].poses, views.poses, atol=1e-6, rtol=0)
    torch.testing.assert_close(read.path_poses, rendered.path_poses, atol=1e-5, rtol=0)
    assert read.focal == pytest.approx(rendered.focal)
    assert (read.near, read.far, read.ndc, read.white_background) == (0.0, 1.0, True, False)


def test_every_eighth_view_is_held_out(folder: Path) -> None:
    shrunk(folder, 4)
    scene = load_llff("toys", folder, width=8)
    numbers = {split: (views.images[:, 0, 0, 0] // 10).tolist() for split, views in scene.splits.items()}
    assert numbers["test"] == [0, 8, 16]
    assert numbers["train"] == [1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15]
    assert numbers["valid"] == [4, 12] and "training" in str(scene.notes["valid"])
    capture = read_capture(folder / "poses_bounds.npy")
    for split, views in scene.splits.items():
        # Rotations relative to view 0 tell which camera a pose was.
        relative = capture.poses[numbers[split], :, :3].transpose(0, 2, 1) @ capture.poses[0, :, :3]
        found = views.poses[:, :, :3].transpose(1, 2) @ scene.splits["test"].poses[0, :, :3]
        np.testing.assert_allclose(found.numpy(), relative, atol=1e-5)
    assert [int(mask.sum()) for mask in split_views(20).values()] == [17, 3]


def test_poses_are_recentred_and_in_front_of_the_near_plane(folder: Path) -> None:
    scene = load_llff("toys", folder, width=32)
    where = split_views(17)
    poses = np.empty((17, 3, 4))
    for split, mask in where.items():
        poses[mask] = scene.splits[split].poses.numpy()
    np.testing.assert_allclose(average_pose(poses), np.eye(3, 4), atol=1e-5)
    # The unit is three quarters of the nearest depth, so distances between cameras shrink by just that.
    capture = read_capture(folder / "poses_bounds.npy")
    before = np.linalg.norm(capture.poses[1, :, 3] - capture.poses[0, :, 3])
    after = np.linalg.norm(poses[1, :, 3] - poses[0, :, 3])
    assert before / after == pytest.approx(0.75 * capture.bounds.min(), rel=1e-5)


def test_default_is_a_quarter_of_the_full_width_by_block_means(folder: Path) -> None:
    scene = load_llff("toys", folder, width=None)
    assert (scene.width, scene.height) == (8, 6)
    assert scene.focal == pytest.approx(1.15 * 8)
    assert scene.notes["resolution"] == "8x6 of 32x24 (images)"
    full = np.asarray(Image.open(folder / "images" / "view_000.png")).astype(float)
    blocks = full.reshape(6, 4, 8, 4, 3).mean(axis=(1, 3))
    assert np.abs(scene.splits["test"].images[0] - blocks).max() <= 0.5 + 1e-9


def test_the_smallest_pictures_that_are_large_enough_are_taken(folder: Path) -> None:
    shrunk(folder, 4)
    shrunk(folder, 2)
    assert load_llff("toys", folder, width=None).notes["resolution"] == "8x6 (images_4)"
    assert load_llff("toys", folder, width=12).notes["resolution"] == "12x9 of 16x12 (images_2)"
    assert load_llff("toys", folder, width=20).notes["resolution"] == "20x15 of 32x24 (images)"
    assert load_llff("toys", folder, width=12).focal == pytest.approx(1.15 * 12)
    with pytest.raises(ConfigError, match="at most 32 wide, not 40"):
        load_llff("toys", folder, width=40)
    with pytest.raises(ConfigError, match="multiple of 4"):
        load_llff("toys", folder, width=10)


def test_cameras_and_pictures_must_match_in_number(folder: Path) -> None:
    (folder / "images" / "view_003.png").unlink()
    with pytest.raises(DataError, match="17 cameras but 16 pictures in images"):
        load_llff("toys", folder, width=32)


def test_pictures_of_another_shape_are_refused(folder: Path) -> None:
    shrunk(folder, 4)
    Image.fromarray(np.zeros((9, 9, 3), dtype=np.uint8)).save(folder / "images_4" / "p00.png")
    with pytest.raises(DataError, match=r"p00.png is 9x9, another aspect ratio"):
        load_llff("toys", folder, width=None)


def test_no_pictures(folder: Path) -> None:
    shutil.rmtree(folder / "images")
    assert not is_complete(folder)
    with pytest.raises(DataError, match="no pictures: neither images nor images_4"):
        load_llff("toys", folder, width=None)


MALFORMED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    r"shape \(views, 17\)": lambda rows: rows[:, :16],
    "at least two views": lambda rows: rows[:1],
    "camera 5 has axes that are no rotation": lambda rows: np.where(np.arange(len(rows))[:, None] == 5, rows * 2, rows),
    "depths must be positive": lambda rows: np.concatenate([rows[:, :15], rows[:, [16, 15]]], axis=1),
    "share one size": lambda rows: rows + np.outer(np.arange(len(rows)) == 3, np.arange(17) == 4),
}


@pytest.mark.parametrize("message", MALFORMED)
def test_malformed_cameras_are_named(folder: Path, message: str) -> None:
    path = folder / "poses_bounds.npy"
    np.save(path, MALFORMED[message](np.load(path)))
    with pytest.raises(DataError, match=rf"poses_bounds\.npy.*{message}"):
        load_llff("toys", folder, width=None)


def test_arrays_of_objects_are_never_unpickled(folder: Path) -> None:
    np.save(folder / "poses_bounds.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"poses_bounds\.npy is not an array of cameras"):
        load_llff("toys", folder, width=None)
    (folder / "poses_bounds.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(DataError, match=r"poses_bounds\.npy is not an array of cameras"):
        load_llff("toys", folder, width=None)
    (folder / "poses_bounds.npy").unlink()
    with pytest.raises(DataError, match=r"poses_bounds\.npy is missing"):
        load_llff("toys", folder, width=None)


@needs_fern
def test_real_fern(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """20 views, 17 to train; focal length 3260.5 at a width of 4032; all cameras look forwards."""
    monkeypatch.setenv("DFA_CACHE_DIR", str(tmp_path))
    scene = load_llff("fern", FERN, width=100)
    assert {split: len(views) for split, views in scene.splits.items()} == {"train": 17, "test": 3, "valid": 2}
    assert (scene.height, scene.width) == (75, 100)
    assert scene.focal == pytest.approx(3260.526 * 100 / 4032, rel=1e-5)
    assert scene.path_poses.shape == (120, 3, 4)
    assert (scene.splits["train"].poses[:, 2, 2] > 0.9).all()
    assert scene.splits["train"].poses[:, :, 3].abs().max() < 2.0
