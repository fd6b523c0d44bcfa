"""The array file of Tiny-NeRF, and the Blender scene that replaces it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.errors import DataError
from benchmarks.families.view_synthesis.scenes.blender import load_blender
from benchmarks.families.view_synthesis.scenes.cameras import turntable
from benchmarks.families.view_synthesis.scenes.tiny import load_tiny, load_tiny_from_blender
from tests.helpers.scenes import write_blender


def arrays() -> dict[str, Any]:
    poses = np.tile(np.eye(4), (106, 1, 1))
    poses[:, :3] = turntable(106)
    images = np.random.default_rng(0).integers(0, 256, (106, 10, 10, 3)) / 255.0
    return {"images": images.astype(np.float32), "poses": poses.astype(np.float32), "focal": np.array(13.9)}


def write(path: Path, content: dict[str, Any]) -> Path:
    np.savez(path, **content)
    return path


def test_first_hundred_train_and_view_101_is_held_out(tmp_path: Path) -> None:
    content = arrays()
    scene = load_tiny("tiny_lego", write(tmp_path / "a.npz", content), width=None)
    numbers = {"train": list(range(100)), "test": [101], "valid": [100, 102, 103, 104, 105]}
    for split, views in scene.splits.items():
        np.testing.assert_allclose(views.images / 255.0, content["images"][numbers[split]], atol=1e-6)
        np.testing.assert_array_equal(views.poses, content["poses"][numbers[split], :3])
    assert (scene.height, scene.width, scene.near, scene.far) == (10, 10, 2.0, 6.0)
    assert scene.focal == pytest.approx(13.9) and not scene.white_background and not scene.ndc
    assert scene.kind == "real" and len(scene.checksums) == 1


def test_shrinking_scales_the_focal_length_and_means_blocks(tmp_path: Path) -> None:
    content = arrays()
    scene = load_tiny("tiny_lego", write(tmp_path / "a.npz", content), width=5)
    assert scene.focal == pytest.approx(13.9 / 2)
    blocks = content["images"][101].reshape(5, 2, 5, 2, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(scene.splits["test"].images[0] / 255.0, blocks, atol=0.51 / 255)


MALFORMED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "images should be floats": lambda content: content.update(images=content["images"][:101]),
    "images should lie between 0 and 1": lambda content: content.update(images=content["images"] * 255),
    r"poses should have shape \(106, 4, 4\)": lambda content: content.update(poses=content["poses"][:, :3]),
    "camera 0 has axes that are no rotation": lambda content: content.update(poses=content["poses"] * 2),
    "focal length must be positive": lambda content: content.update(focal=np.array(-1.0)),
    "not an array file of views": lambda content: content.pop("focal"),
}


@pytest.mark.parametrize("message", MALFORMED)
def test_malformed_arrays_are_named(tmp_path: Path, message: str) -> None:
    content = arrays()
    MALFORMED[message](content)
    with pytest.raises(DataError, match=rf"a\.npz.*{message}"):
        load_tiny("tiny_lego", write(tmp_path / "a.npz", content), width=None)


@pytest.mark.parametrize("damage", ["missing", "text", "cut", "objects"])
def test_broken_files_are_named_and_nothing_is_unpickled(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.npz"
    if damage == "objects":
        np.savez(path, images=np.array([{}], dtype=object), poses=np.zeros(1), focal=np.array(1.0))
    elif damage != "missing":
        content = write(path, arrays()).read_bytes()
        path.write_bytes(b"PK no zip" if damage == "text" else content[: len(content) // 2])
    with pytest.raises(DataError, match=r"a\.npz is not an array file of views"):
        load_tiny("tiny_lego", path, width=None)


def test_a_blender_scene_takes_its_place_and_says_so(tmp_path: Path) -> None:
    write_blender(tmp_path / "toys", width=16, views=10)
    scene = load_tiny_from_blender("tiny_lego", tmp_path / "toys", width=8, allow_partial=False)
    blender = load_blender("toys", tmp_path / "toys", width=8, allow_partial=False, white_background=False)
    assert {split: len(views) for split, views in scene.splits.items()} == {"train": 10, "valid": 2, "test": 1}
    assert scene.notes["test_views"] == 1
    np.testing.assert_array_equal(scene.splits["test"].images, blender.splits["test"].images[:1])
    assert "toys's 10 training views" in str(scene.notes["pictures"])
    assert "area-filtered to 8x8, in place of tiny_nerf_data.npz" in str(scene.notes["pictures"])
    assert not scene.white_background
    assert (scene.splits["train"].images[0, 0, 0] == 0).all()  # an empty corner is black
