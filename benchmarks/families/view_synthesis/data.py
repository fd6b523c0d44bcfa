"""Scenes by name: loaded from disk, downloaded on request, or rendered by the project (stand-in)."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.errors import ConfigError, DataError
from benchmarks.families.view_synthesis.scenes import blender, llff, tiny
from benchmarks.families.view_synthesis.scenes.download import download_file, download_scene
from benchmarks.families.view_synthesis.scenes.scene import Scene
from benchmarks.families.view_synthesis.stand_in import views as stand_in
from benchmarks.utils.paths import data_roots
from benchmarks.utils.text import fetch_or
from benchmarks.utils.values import check_known

BLENDER = ("chair", "drums", "ficus", "hotdog", "lego", "materials", "mic", "ship")
LLFF = ("fern", "flower", "fortress", "horns", "leaves", "orchids", "room", "trex")
TINY = "tiny_lego"
GENERATED = ("stand_in", "stand_in_front")
SCENES = (*BLENDER, *LLFF, TINY, *GENERATED)

SCENE_OF_TASK = {
    **{f"blender_{scene}": scene for scene in BLENDER},
    **{f"llff_{scene}": scene for scene in LLFF},
    "tiny_nerf_lego": TINY,
}

_TASK_OF_SCENE = {scene: task for task, scene in SCENE_OF_TASK.items()}
_TINY_SUBSTITUTE = "lego"


def load_scene(
    name: str,
    *,
    data_dir: Path,
    source: str = "real",
    download: bool = False,
    width: int | None = None,
    allow_partial: bool = False,
    stand_in_views: int = stand_in.VIEWS,
) -> Scene:
    """Load a scene.

    Args:
        name: one of `SCENES`: a scene of NeRF-Synthetic or LLFF-Real, "tiny_lego" (the array of Tiny-NeRF, or the
            Blender Lego at its size), or a stand-in: "stand_in" seen from all sides, "stand_in_front" from one.
        data_dir: the collections lie in `<data_dir>/nerf_synthetic` and `<data_dir>/nerf_llff_data`.
        source: "real" or "stand_in"; the latter replaces a real scene by the stand-in with similar cameras.
        download: whether to download a real scene that is missing or incomplete.
        width: width of the pictures in pixels; None or 0 for 800 (Blender), a quarter of the full width (LLFF), 100
            (Tiny-NeRF) or 50 (stand-in).
        allow_partial: whether to leave out (and record) frames of a Blender scene whose picture is missing.
        stand_in_views: training views of a stand-in scene.

    Raises:
        ConfigError: unknown name, or an option that does not fit the scene.
        DataError: the scene is missing, malformed or incomplete, or cannot be downloaded.
    """
    check_known("scene", name, SCENES)
    if allow_partial and name not in (*BLENDER, TINY):
        raise ConfigError(
            f"task option allow_partial is of NeRF-Synthetic's scenes alone, and '{name}' is none of them"
        )
    width = width or None
    if source == "stand_in":
        return _stand_in(name, width or stand_in.WIDTH, stand_in_views)
    if name in GENERATED:
        raise ConfigError(f"'{name}' is rendered by the project: set task.source=stand_in")
    if name == TINY:
        return _tiny(data_dir, download, width, allow_partial)
    folder = _folder(name, data_dir, download, allow_partial)
    if name in BLENDER:
        return blender.load_blender(name, folder, width=width, allow_partial=allow_partial)
    return llff.load_llff(name, folder, width=width)


def missing_data(task: str, data_dir: Path) -> str:
    """Return why the real data of a task are not available, or ""; no file is read or fetched."""
    scene = SCENE_OF_TASK[task]
    if scene == TINY and _find_array(data_dir):
        return ""
    name = _TINY_SUBSTITUTE if scene == TINY else scene
    if _find(name, data_dir) is not None:
        return ""
    wanted = _candidates(name, data_dir)[0]
    return f"{name} is not in {wanted}; {fetch_or(task, 'place it there')}"


def data_files(task: str, data_dir: Path, options: Mapping[str, Any]) -> list[Path]:
    """List the files of a task's real scene; empty if it is missing."""
    scene = SCENE_OF_TASK[task]
    array = _find_array(data_dir) if scene == TINY else None
    if array is not None:
        return [array]
    folder = _find(_TINY_SUBSTITUTE if scene == TINY else scene, data_dir)
    if folder is None:
        return []
    # Decoded pictures may be cached within the scene's folder; they are no part of the data.
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_relative_to(folder / "cache"))


def _stand_in(name: str, width: int, views: int) -> Scene:
    if width < 4 or views < 2:
        raise ConfigError(f"a stand-in scene needs width of at least 4 and at least 2 views, got {width} and {views}")
    if name in (*LLFF, GENERATED[1]):
        return stand_in.load_front(name, width, views)
    return stand_in.load_surround(name, width, views, white_background=name != TINY)


def _tiny(data_dir: Path, download: bool, width: int | None, allow_partial: bool) -> Scene:
    path, folder = _find_array(data_dir), _find(_TINY_SUBSTITUTE, data_dir)
    if path is None and download:
        with _tolerated("using the Blender Lego instead", folder is not None):
            path = download_file(tiny.FILE, data_dir)
    if path is not None:
        return tiny.load_tiny(TINY, path, width=width)
    if folder is not None:
        return tiny.load_tiny_from_blender(TINY, folder, width=width, allow_partial=allow_partial)
    raise DataError(
        f"neither {data_dir / tiny.FILE} nor {_candidates(_TINY_SUBSTITUTE, data_dir)[0]} exists;"
        f" {fetch_or(_TASK_OF_SCENE[TINY], 'place one there', in_a_run=True)}"
    )


def _find_array(data_dir: Path) -> Path | None:
    return next((root / tiny.FILE for root in data_roots(data_dir) if (root / tiny.FILE).is_file()), None)


def _collection(name: str) -> str:
    return "nerf_synthetic" if name in BLENDER else "nerf_llff_data"


def _candidates(name: str, data_dir: Path) -> list[Path]:
    return [root / _collection(name) / name for root in data_roots(data_dir)]


def _find(name: str, data_dir: Path) -> Path | None:
    """Return the first folder with the whole scene, else the first with a part of it, else None."""
    folders = [folder for folder in _candidates(name, data_dir) if _is_scene(name, folder)]
    return next((folder for folder in folders if _is_whole(name, folder)), folders[0] if folders else None)


def _is_scene(name: str, folder: Path) -> bool:
    return blender.has_frame_lists(folder) if name in BLENDER else llff.is_complete(folder)


def _is_whole(name: str, folder: Path) -> bool:
    return blender.is_complete(folder) if name in BLENDER else llff.is_complete(folder)


def _folder(name: str, data_dir: Path, download: bool, allow_partial: bool) -> Path:
    folder = _find(name, data_dir)
    if download and (folder is None or not _is_whole(name, folder)):
        with _tolerated("using the pictures that are present", folder is not None and allow_partial):
            folder = download_scene(_collection(name), name, data_dir)
    if folder is None:
        raise DataError(
            f"scene '{name}' is not in {_candidates(name, data_dir)[0]};"
            f" {fetch_or(_TASK_OF_SCENE[name], 'place it there', in_a_run=True)}"
        )
    return folder


@contextmanager
def _tolerated(fallback: str, possible: bool) -> Iterator[None]:
    """Report a failed download in this block without raising it, if `possible`: there are other data to use."""
    try:
        yield
    except DataError as error:
        if not possible:
            raise
        print(f"{error}; {fallback}", file=sys.stderr)
