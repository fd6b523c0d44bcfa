"""Blender format: splits, cameras, partial sets, malformed files; the real Lego where DFA_DATA_DIR holds it."""

import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.errors import ConfigError, DataError
from benchmarks.families.view_synthesis.scenes.blender import has_frame_lists, is_complete, load_blender
from benchmarks.families.view_synthesis.stand_in import views as stand_in
from tests.helpers.scenes import write_blender

LEGO = Path(os.environ.get("DFA_DATA_DIR", "")) / "nerf_synthetic" / "lego"
needs_lego = pytest.mark.skipif(
    "DFA_DATA_DIR" not in os.environ or not has_frame_lists(LEGO), reason="DFA_DATA_DIR does not hold Lego"
)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("blender") / "toys"
    write_blender(folder, width=16, views=10)
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """Return a copy of the scene that a test may damage."""
    return Path(shutil.copytree(original, tmp_path / "toys"))


def edit(path: Path, change: Callable[[Any], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_what_is_rendered_reads_back_equal(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DFA_CACHE_DIR", str(tmp_path / "cache"))
    rendered = stand_in.load_surround("toys", width=16, views=10)
    read = load_blender("toys", folder, width=None, allow_partial=False)
    for split, views in rendered.splits.items():
        np.testing.assert_array_equal(read.splits[split].images, views.images)
        assert torch.equal(read.splits[split].poses, views.poses)
    assert (read.focal, read.near, read.far, read.height, read.width) == (rendered.focal, 2.0, 6.0, 16, 16)
    assert read.white_background and not read.ndc and (read.kind, rendered.kind) == ("real", "stand-in")
    assert is_complete(folder)


def test_focal_follows_from_the_angle_of_view_at_any_width(folder: Path) -> None:
    """Half the angle's tangent is half the width over the focal length."""
    for width in (16, 8, 5):
        scene = load_blender("toys", folder, width=width, allow_partial=False)
        assert (scene.height, scene.width) == (width, width)
        assert math.atan(0.5 * width / scene.focal) == pytest.approx(0.5 * 0.6911112070083618)
        assert scene.splits["train"].images.shape == (10, width, width, 3)


def test_smaller_pictures_are_block_means_of_the_composite(folder: Path) -> None:
    rgba = np.asarray(Image.open(folder / "train" / "r_3.png")).astype(float)
    composite = rgba[..., :3] * rgba[..., 3:] / 255 + (255 - rgba[..., 3:])
    blocks = composite.reshape(4, 4, 4, 4, 3).mean(axis=(1, 3))
    scene = load_blender("toys", folder, width=4, allow_partial=False)
    assert np.abs(scene.splits["train"].images[3] - blocks).max() <= 0.5 + 1e-9


def test_missing_pictures_are_an_error_or_left_out_with_a_note(folder: Path) -> None:
    whole = load_blender("toys", folder, width=None, allow_partial=True)
    assert "left_out" not in whole.notes
    for name in ("train/r_2.png", "train/r_7.png", "test/r_0.png"):
        (folder / name).unlink()
    assert has_frame_lists(folder) and not is_complete(folder)
    with pytest.raises(DataError, match=r"2 of 10 train, 1 of 2 test frames.*train/r_2.png.*allow_partial"):
        load_blender("toys", folder, width=None, allow_partial=False)
    partial = load_blender("toys", folder, width=None, allow_partial=True)
    assert partial.notes["left_out"] == "2 of 10 train, 1 of 2 test frames without a picture"
    assert partial.notes["train_views"] == 8 and partial.notes["test_views"] == 1
    kept = [0, 1, 3, 4, 5, 6, 8, 9]
    np.testing.assert_array_equal(partial.splits["train"].images, whole.splits["train"].images[kept])
    assert torch.equal(partial.splits["train"].poses, whole.splits["train"].poses[kept])
    assert torch.equal(partial.splits["test"].poses, whole.splits["test"].poses[1:])


def test_a_split_without_any_picture_is_an_error_even_where_parts_are_allowed(folder: Path) -> None:
    shutil.rmtree(folder / "val")
    with pytest.raises(DataError, match="has no pictures for: valid"):
        load_blender("toys", folder, width=None, allow_partial=True)


def test_corrupted_picture_is_named(folder: Path) -> None:
    victim = folder / "val" / "r_1.png"
    victim.write_bytes(victim.read_bytes()[:100])
    with pytest.raises(DataError, match=r"val/r_1\.png cannot be read"):
        load_blender("toys", folder, width=8, allow_partial=True)
    assert not list((folder / "cache").glob("toys-valid*"))


MALFORMED: dict[str, Callable[[Any], None]] = {
    "not a list of frames": lambda content: content.pop("frames"),
    "lists no frames": lambda content: content.update(frames=[]),
    "must lie between 0 and pi": lambda content: content.update(camera_angle_x=4.0),
    "not 4 by 4": lambda content: content["frames"][2]["transform_matrix"].pop(),
    "camera 2 has axes that are no rotation": lambda content: content["frames"][2]["transform_matrix"][0].__setitem__(
        0, 7
    ),
    "camera 1 has a pose that is not finite": lambda content: content["frames"][1]["transform_matrix"][0].__setitem__(
        3, float("nan")
    ),
}


@pytest.mark.parametrize("message", MALFORMED)
def test_malformed_lists_are_named(folder: Path, message: str) -> None:
    edit(folder / "transforms_train.json", MALFORMED[message])
    with pytest.raises(DataError, match=rf"transforms_train\.json.*{message}") as caught:
        load_blender("toys", folder, width=None, allow_partial=False)
    assert "\n" not in str(caught.value)


def test_other_faults_of_lists(folder: Path) -> None:
    edit(folder / "transforms_val.json", lambda content: content.update(camera_angle_x=0.5))
    with pytest.raises(DataError, match="differ in camera_angle_x"):
        load_blender("toys", folder, width=None, allow_partial=False)
    (folder / "transforms_val.json").write_text("{")
    with pytest.raises(DataError, match=r"transforms_val\.json is not a list of frames"):
        load_blender("toys", folder, width=None, allow_partial=False)
    (folder / "transforms_val.json").unlink()
    with pytest.raises(DataError, match=r"transforms_val\.json cannot be read"):
        load_blender("toys", folder, width=None, allow_partial=False)


def test_wider_than_the_pictures_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="between 1 and the pictures' own 16"):
        load_blender("toys", folder, width=17, allow_partial=False)


def test_checksums_tell_altered_pictures(folder: Path) -> None:
    before = load_blender("toys", folder, width=None, allow_partial=False).checksums
    picture = folder / "test" / "r_0.png"
    Image.open(folder / "test" / "r_1.png").save(picture)
    after = load_blender("toys", folder, width=None, allow_partial=False).checksums
    changed = [name for name in before if before[name] != after[name]]
    assert changed == ["test (2 pictures)"]


@needs_lego
def test_real_lego(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its cameras stand 4.03 from the origin and look at it; the picture is white at the corners."""
    monkeypatch.setenv("DFA_CACHE_DIR", str(tmp_path))
    partial = tmp_path / "lego"
    partial.mkdir()
    for split in ("train", "val", "test"):
        listing = json.loads((LEGO / f"transforms_{split}.json").read_text())
        (partial / f"transforms_{split}.json").write_text(json.dumps(listing))
        (partial / split).mkdir()
        for name in ("r_0.png", "r_16.png"):
            (partial / split / name).symlink_to(LEGO / split / name)
    with pytest.raises(DataError, match="98 of 100 train, 98 of 100 valid, 198 of 200 test"):
        load_blender("lego", partial, width=100, allow_partial=False)
    scene = load_blender("lego", partial, width=100, allow_partial=True)
    assert scene.focal == pytest.approx(138.8889, abs=1e-3)  # 1111.11 at 800
    poses = scene.splits["train"].poses
    assert poses.dtype == torch.float32
    torch.testing.assert_close(poses[:, :, 3].norm(dim=1), torch.full((2,), 4.0311), atol=1e-3, rtol=0)
    torch.testing.assert_close(poses[:, :, 3] / 4.0311, poses[:, :, 2], atol=1e-3, rtol=0)
    images = scene.splits["train"].images
    assert (images[:, 0, 0] == 255).all() and (images[:, -1, -1] == 255).all()
    middle = images[:, 40:60, 40:60].mean(axis=(0, 1, 2))
    assert middle[0] > middle[2] + 30  # Lego is yellow
