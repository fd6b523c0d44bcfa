"""Reading, compositing and shrinking pictures, and the cache of the results."""

import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.errors import ConfigError, DataError
from benchmarks.families.view_synthesis.scenes import cache as picture_cache
from benchmarks.families.view_synthesis.scenes.cache import cached, decoded, image_cache_dir
from benchmarks.families.view_synthesis.scenes.images import (
    area_filter,
    picture_size,
    prepare,
    read_picture,
    scaled_size,
)
from tests.helpers.scenes import write_picture
from tests.helpers.terminal import Terminal


def random_picture(height: int, width: int, channels: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def test_area_filter_is_the_block_mean_where_sizes_divide() -> None:
    picture = np.random.default_rng(0).random((12, 8, 3))
    small = area_filter(picture, 4, 2)
    for row in range(4):
        for column in range(2):
            block = picture[3 * row : 3 * row + 3, 4 * column : 4 * column + 4]
            np.testing.assert_allclose(small[row, column], block.mean(axis=(0, 1)), rtol=1e-12)


@pytest.mark.parametrize("size", [(7, 5), (3, 11), (10, 13), (1, 1)])
def test_area_filter_of_any_size_is_the_mean_over_the_covered_area(size: tuple[int, int]) -> None:
    """Blowing pixels up by the new size makes every size divide: there the block mean is exact."""
    height, width = size
    picture = np.random.default_rng(1).random((10, 13, 2))
    enlarged = picture.repeat(height, axis=0).repeat(width, axis=1)
    blocks = enlarged.reshape(height, 10, width, 13, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(area_filter(picture, height, width), blocks, rtol=1e-12)


def test_composite_follows_the_formula_and_comes_before_the_filter() -> None:
    picture = random_picture(6, 6, 4)
    alpha = picture[..., 3:] / 255.0
    for white in (False, True):
        composite = picture[..., :3] * alpha + 255.0 * white * (1.0 - alpha)
        assert np.abs(prepare(picture, 6, 6, white) - composite).max() <= 0.5 + 1e-9
        mean = composite.reshape(2, 3, 2, 3, 3).mean(axis=(1, 3))
        assert np.abs(prepare(picture, 2, 2, white) - mean).max() <= 0.5 + 1e-9


def test_invisible_colours_do_not_show() -> None:
    picture = np.zeros((2, 2, 4), dtype=np.uint8)
    picture[..., 0] = 255
    assert (prepare(picture, 1, 1, white_background=True) == 255).all()
    assert (prepare(picture, 2, 2, white_background=False) == 0).all()


def test_opaque_pictures_pass_unchanged() -> None:
    picture = random_picture(5, 7, 3)
    opaque = np.concatenate([picture, np.full((5, 7, 1), 255, dtype=np.uint8)], axis=-1)
    for background in (False, True):
        np.testing.assert_array_equal(prepare(picture, 5, 7, background), picture)
        np.testing.assert_array_equal(prepare(opaque, 5, 7, background), picture)


def test_scaled_size_keeps_pixels_square() -> None:
    assert scaled_size(800, 800, None) == (800, 800)
    assert scaled_size(756, 1008, 128) == (96, 128)
    with pytest.raises(ConfigError, match=r"multiple of 4, e\.g\. 128"):
        scaled_size(756, 1008, 127)
    for width in (0, 801, -3):
        with pytest.raises(ConfigError, match="between 1 and the pictures' own 800"):
            scaled_size(800, 800, width)


def test_files_are_read_as_they_were_written(tmp_path: Path) -> None:
    for channels in (3, 4):
        picture = random_picture(4, 6, channels)
        write_picture(tmp_path / "p.png", picture)
        np.testing.assert_array_equal(read_picture(tmp_path / "p.png"), picture)
        assert picture_size(tmp_path / "p.png") == (4, 6)


@pytest.mark.parametrize("damage", ["missing", "text", "cut", "empty"])
def test_broken_pictures_are_named(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "p.png"
    if damage != "missing":
        write_picture(path, random_picture(40, 40, 3))
        content = path.read_bytes()
        path.write_bytes({"text": b"no picture", "cut": content[: len(content) // 2], "empty": b""}[damage])
    with pytest.raises(DataError, match=r"p\.png cannot be read as a picture") as caught:
        read_picture(path)
    assert "\n" not in str(caught.value)


def write_all(folder: Path, pictures: list[np.ndarray]) -> list[Path]:
    files = [folder / f"{number}.png" for number in range(len(pictures))]
    for file, picture in zip(files, pictures, strict=True):
        write_picture(file, picture)
    return files


def test_decoded_pictures_are_in_order_mapped_read_only_and_decoded_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = [random_picture(6, 9, 3, seed) for seed in range(20)]
    files = write_all(tmp_path, pictures)
    images, digest = decoded(files, (2, 3), False, tmp_path / "cache", "some train")
    expected = [prepare(picture, 2, 3, False) for picture in pictures]
    np.testing.assert_array_equal(images, np.stack(expected))
    assert isinstance(images, np.memmap) and not images.flags.writeable

    monkeypatch.setattr(picture_cache, "read_picture", lambda path: pytest.fail("decoded again"))
    again, same = decoded(files, (2, 3), False, tmp_path / "cache", "some train")
    np.testing.assert_array_equal(again, images)
    assert same == digest


def test_a_bar_of_decoding_is_on_the_terminal_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr("benchmarks.utils.progress._PATIENCE_SECONDS", -1.0)
    files = write_all(tmp_path, [random_picture(4, 6, 3, seed) for seed in range(3)])
    decoded(files, (2, 3), False, tmp_path / "cache", "some train")
    assert "decoding some train" in terminal.getvalue() and not capsys.readouterr().out


def test_changed_files_and_options_are_decoded_anew(tmp_path: Path) -> None:
    files = write_all(tmp_path, [random_picture(4, 4, 4, seed) for seed in range(2)])
    first, digest = decoded(files, (2, 2), True, tmp_path / "cache", "t")
    black, _ = decoded(files, (2, 2), False, tmp_path / "cache", "t")
    assert (np.asarray(first) != black).any()
    write_picture(files[1], random_picture(4, 4, 4, 9))
    other, changed = decoded(files, (2, 2), True, tmp_path / "cache", "t")
    assert changed != digest
    np.testing.assert_array_equal(other[0], first[0])
    assert (other[1] != first[1]).any()


def test_pictures_of_different_size_are_refused_and_nothing_is_left(tmp_path: Path) -> None:
    files = write_all(tmp_path, [random_picture(4, 4, 3), random_picture(4, 8, 3)])
    with pytest.raises(DataError, match="differ in size"):
        decoded(files, (2, 2), False, tmp_path / "cache", "t")
    assert not list((tmp_path / "cache").glob("*.npy")) and not list((tmp_path / "cache").glob("*.tmp"))


def test_damaged_cache_is_made_anew(tmp_path: Path) -> None:
    path, shape = tmp_path / "c.npy", (3, 2, 2, 3)

    def fill(pictures: np.ndarray) -> None:
        pictures[:] = 7

    cached(path, shape, fill)
    for damage in (path.read_bytes()[:-5], b"nothing of the kind", b""):
        path.write_bytes(damage)
        assert (cached(path, shape, fill) == 7).all()
    np.save(path, np.zeros((3, 2, 2), dtype=np.uint8))
    assert cached(path, shape, fill).shape == shape


def test_interrupted_filling_leaves_nothing(tmp_path: Path) -> None:
    def fail(pictures: np.ndarray) -> None:
        pictures[0] = 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached(tmp_path / "c.npy", (2, 2, 2, 3), fail)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_cache_lies_beside_the_scene_unless_that_is_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DFA_CACHE_DIR", str(tmp_path / "mine"))
    scene = tmp_path / "lego"
    scene.mkdir()
    assert image_cache_dir(scene) == scene / "cache"
    (scene / "cache").rmdir()
    scene.chmod(0o555)
    assert image_cache_dir(scene) == tmp_path / "mine" / "view_synthesis" / "lego"
